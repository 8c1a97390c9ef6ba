"""What `LLM.generate` and `AsyncLLM.generate` return: the classes that vLLM's users know, with times added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ramify.engine.request import TokenLogprobs
from ramify.sampling import TokenIds
from ramify.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Logprob:
    """One token's log-probability at one position.

    Attributes:
        logprob: natural logarithm, under the model's own distribution.
        rank: 1 for the most likely token of the position.
        decoded_token: its text.
    """

    logprob: float
    rank: int
    decoded_token: str


PositionLogprobs = dict[int, Logprob]
"""Token id -> its log-probability: the token that stands there, and the most likely ones if asked for."""


@dataclass(slots=True)
class RequestMetrics:
    """Times of a request, in seconds of `time.perf_counter`.

    Attributes:
        arrival_time_s: when it was added.
        token_times_s: when each token of the first continuation came.
        finished_time_s: when the last continuation ended; None while it runs.
        num_cached_tokens: prompt tokens whose KV came from the prefix cache.
    """

    arrival_time_s: float
    token_times_s: list[float] = field(default_factory=list)
    finished_time_s: float | None = None
    num_cached_tokens: int = 0

    @property
    def ttft_s(self) -> float | None:
        """Time to the first token."""
        return self.token_times_s[0] - self.arrival_time_s if self.token_times_s else None

    @property
    def inter_token_latencies_s(self) -> list[float]:
        """Times between the tokens."""
        return [later - earlier for earlier, later in zip(self.token_times_s, self.token_times_s[1:], strict=False)]


@dataclass(slots=True)
class CompletionOutput:
    """One continuation.

    Attributes:
        index: 0 to n-1.
        text: without the stop string or stop token, unless `include_stop_str_in_output`.
        token_ids: all that were drawn, the ending token included.
        cumulative_logprob: sum over the drawn tokens; None unless `logprobs` was given.
        logprobs: one entry a token; None unless asked for.
        finish_reason: "stop", "length", "abort" or None while it runs.
        stop_reason: the stop string or stop token id that ended it; None for the end of sequence or a limit.
    """

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: list[PositionLogprobs] | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return self.finish_reason is not None


@dataclass(slots=True)
class RequestOutput:
    """A request with its continuations so far.

    Attributes:
        request_id: given by the caller or counted up.
        prompt: as text where it was given as text or messages.
        prompt_token_ids: what the model saw.
        prompt_logprobs: one entry a prompt token (None for the first); None unless asked for.
        outputs: n continuations.
        finished: whether all of them have ended.
        metrics: times.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: TokenIds
    outputs: list[CompletionOutput]
    metrics: RequestMetrics
    prompt_logprobs: list[PositionLogprobs | None] | None = None
    finished: bool = False

    @property
    def num_cached_tokens(self) -> int:
        """Prompt tokens whose KV came from the prefix cache."""
        return self.metrics.num_cached_tokens


def position_logprobs(entry: TokenLogprobs, tokenizer: Tokenizer) -> PositionLogprobs:
    """The engine's entry of a position as the mapping that callers get: most likely tokens, then the drawn one."""
    found = {
        token: Logprob(logprob, rank, tokenizer.token_text(token))
        for rank, (token, logprob) in enumerate(entry.top, start=1)
    }
    if entry.token not in found:
        text = tokenizer.token_text(entry.token)
        found[entry.token] = Logprob(entry.logprob, entry.rank, text)
    return found


def prompt_position_logprobs(
    entries: Sequence[TokenLogprobs | None], tokenizer: Tokenizer
) -> list[PositionLogprobs | None]:
    """The same for a prompt."""
    return [None if entry is None else position_logprobs(entry, tokenizer) for entry in entries]
