// Drawing tokens from rows of logits, and describing the tokens that were drawn.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ramify {

// How a row is drawn from. Truncations apply in the order of the fields, each to what the ones before it left.
struct DrawParameters {
  double inverse_temperature;  // 0 takes the most likely token
  double top_k;                // 0 keeps all
  double top_p;                // 1 keeps all
  double min_p;                // 0 keeps all
  double typical_p;            // 1 keeps all
  double draw;                 // in (0, 1): where in the cumulative distribution the token is
};

// What is told of a row's token; `top_ids` and `top_logits` are [rows, num_top].
struct Descriptions {
  float* logprobs;
  float* means;  // of the log-probabilities of all tokens
  std::int64_t* ranks;
  std::int64_t* top_ids;
  float* top_logprobs;
  std::size_t num_top;
};

struct SamplingOps {
  // tokens[r] from logits [rows, size]; -1 for a row with a NaN or nothing finite. Among equals lower ids come first.
  void (*draw_tokens)(const float* logits, std::size_t rows, std::size_t size, const DrawParameters* parameters,
                      std::int64_t* tokens);
  void (*describe_tokens)(const float* logits, std::size_t rows, std::size_t size, const std::int64_t* tokens,
                          const Descriptions& out);
};

}  // namespace ramify
