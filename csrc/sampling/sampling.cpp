#include "sampling/sampling.h"

#include <cmath>

#include "sampling/truncation.h"
#include "core/thread_pool.h"

namespace ramify::RAMIFY_ISA {
namespace {

struct Place {
  std::size_t index;
  double inside;  // how far into the interval the draw falls, in [0, 1]
};

// The interval of the cumulative weights that a draw in (0, 1) falls into; never one of weight zero.
template <class Weight>
Place locate(const Weight* weights, std::size_t count, double draw) {
  double total = 0.0;
  for (std::size_t i = 0; i < count; ++i) total += static_cast<double>(weights[i]);
  const double target = std::min(draw * total, std::nextafter(total, 0.0));
  double before = 0.0;
  for (std::size_t i = 0; i < count; ++i) {
    const double width = static_cast<double>(weights[i]);
    if (before + width > target) return {i, std::clamp((target - before) / width, 0.0, 1.0)};
    before += width;
  }
  return {count - 1, 1.0};  // only for a total of zero, which no row has
}

std::int64_t draw_token(const LogitsRow& row, const DrawParameters& parameters) {
  if (!row.works()) return -1;
  if (parameters.inverse_temperature == 0.0) return static_cast<std::int64_t>(row.first_of_maximum());
  Kept kept(row, static_cast<float>(parameters.inverse_temperature));
  truncate(parameters, kept);
  std::vector<double> sums(row.chunks(), 0.0);
  Weights weights;
  for (std::size_t c = 0; c < row.chunks(); ++c) {
    if (kept.skips(c)) continue;
    kept.fill(c, weights);
    sums[c] = static_cast<double>(sum_of(weights.weights.data(), row.length(c)));
  }
  const Place chunk = locate(sums.data(), sums.size(), parameters.draw);
  kept.fill(chunk.index, weights);
  const Place token = locate(weights.weights.data(), row.length(chunk.index), chunk.inside);
  return static_cast<std::int64_t>(chunk.index * CHUNK + token.index);
}

void draw_tokens(const float* logits, std::size_t rows, std::size_t size, const DrawParameters* parameters,
                 std::int64_t* tokens) {
  parallel_for(rows, 1, [=](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      tokens[row] = draw_token(LogitsRow(logits + row * size, size), parameters[row]);
    }
  });
}

// Logarithm of the sum of the exponentials.
double normaliser(const LogitsRow& row) {
  const F32x16 maximum = F32x16::broadcast(row.maximum());
  std::array<float, CHUNK> weights;
  double total = 0.0;
  for (std::size_t c = 0; c < row.chunks(); ++c) {
    const std::size_t length = row.length(c);
    for (std::size_t i = 0; i < length; i += LANES) {
      exp(F32x16::load_first(row.chunk(c) + i, length - i) - maximum).store_first(weights.data() + i, length - i);
    }
    total += static_cast<double>(sum_of(weights.data(), length));
  }
  return static_cast<double>(row.maximum()) + std::log(total);
}

float mean_of(const LogitsRow& row, double normaliser) {
  double total = 0.0;
  for (std::size_t c = 0; c < row.chunks(); ++c) total += static_cast<double>(sum_of(row.chunk(c), row.length(c)));
  return static_cast<float>(total / static_cast<double>(row.size()) - normaliser);
}

std::int64_t rank_of(const LogitsRow& row, float logit) {
  std::int64_t above = 0;
  for (std::size_t c = 0; c < row.chunks(); ++c) {
    if (!(row.maximum(c) > logit)) continue;
    const float* x = row.chunk(c);
    above += std::count_if(x, x + row.length(c), [=](float other) { return other > logit; });
  }
  return above + 1;
}

// A row of which nothing can be said: it has a NaN or an infinity.
void describe_nothing(std::size_t at, const Descriptions& out) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  out.logprobs[at] = out.means[at] = nan;
  out.ranks[at] = 1;
  for (std::size_t i = 0; i < out.num_top; ++i) {
    out.top_ids[at * out.num_top + i] = static_cast<std::int64_t>(i);
    out.top_logprobs[at * out.num_top + i] = nan;
  }
}

void describe_token(const LogitsRow& row, std::size_t token, std::size_t at, const Descriptions& out) {
  if (!row.works()) return describe_nothing(at, out);
  const double normaliser = ramify::RAMIFY_ISA::normaliser(row);
  const auto logprob = [=](float logit) { return static_cast<float>(static_cast<double>(logit) - normaliser); };
  const float own = row.chunk(0)[token];
  out.logprobs[at] = logprob(own);
  out.means[at] = mean_of(row, normaliser);
  out.ranks[at] = rank_of(row, own);
  if (out.num_top == 0) return;
  const std::vector<Candidate> top = row.highest(out.num_top, [](float logit) { return logit; });
  for (std::size_t i = 0; i < out.num_top; ++i) {
    out.top_ids[at * out.num_top + i] = static_cast<std::int64_t>(top[i].id);
    out.top_logprobs[at * out.num_top + i] = logprob(top[i].value);
  }
}

void describe_tokens(const float* logits, std::size_t rows, std::size_t size, const std::int64_t* tokens,
                     const Descriptions& out) {
  parallel_for(rows, 1, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      describe_token(LogitsRow(logits + row * size, size), static_cast<std::size_t>(tokens[row]), row, out);
    }
  });
}

}  // namespace

SamplingOps sampling_ops() { return {.draw_tokens = draw_tokens, .describe_tokens = describe_tokens}; }

}  // namespace ramify::RAMIFY_ISA
