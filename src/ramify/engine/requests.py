"""One request of a caller while it runs: gathers what its sequences bring into a `RequestOutput`."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ramify.engine.outputs import (
    CompletionOutput,
    RequestMetrics,
    RequestOutput,
    position_logprobs,
    prompt_position_logprobs,
)
from ramify.engine.request import SequenceOutput
from ramify.engine.text_output import SequenceText, start_of
from ramify.errors import RamifyError
from ramify.sampling import SamplingParams, TokenIds
from ramify.text.tokenizer import Tokenizer


class RunningRequest:
    """Follows the n sequences of a request.

    Attributes:
        output: the state so far; the same object throughout.
        error: why a sequence of it failed.
    """

    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        prompt_ids: TokenIds,
        params: SamplingParams,
        sequence_ids: Sequence[int],
        tokenizer: Tokenizer,
    ) -> None:
        self.sequence_ids = tuple(sequence_ids)
        self.error: RamifyError | None = None
        self._params = params
        self._tokenizer = tokenizer
        self._index = {sequence_id: index for index, sequence_id in enumerate(sequence_ids)}
        self._texts = [SequenceText(tokenizer, params, start_of(params)) for _ in sequence_ids]
        logged = params.logprobs is not None
        self.output = RequestOutput(
            request_id,
            prompt,
            prompt_ids,
            [
                CompletionOutput(i, "", [], 0.0 if logged else None, [] if logged else None)
                for i in self._index.values()
            ],
            RequestMetrics(time.perf_counter()),
        )

    def push(self, news: SequenceOutput) -> bool:
        """Take a step's news.

        Returns:
            Whether the sequence met a stop string, so that the engine has to finish it.
        """
        index = self._index[news.sequence_id]
        completion, text = self.output.outputs[index], self._texts[index]
        now = time.perf_counter()
        if index == 0:
            self.output.metrics.token_times_s += [now] * len(news.new_token_ids)
            self.output.metrics.num_cached_tokens = max(self.output.metrics.num_cached_tokens, news.num_cached_tokens)
        if news.prompt_logprobs is not None:
            self.output.prompt_logprobs = prompt_position_logprobs(news.prompt_logprobs, self._tokenizer)
        completion.token_ids += news.new_token_ids
        if completion.logprobs is not None and completion.cumulative_logprob is not None:
            completion.logprobs += [position_logprobs(entry, self._tokenizer) for entry in news.new_logprobs]
            completion.cumulative_logprob += sum(entry.logprob for entry in news.new_logprobs)
        text.push(news)
        completion.text = text.text
        completion.stop_reason = text.stop_reason
        completion.finish_reason = "stop" if text.stopped else news.finish_reason
        self.error = self.error or news.error
        if completion.finished and all(each.finished for each in self.output.outputs):
            self.output.finished = True
            self.output.metrics.finished_time_s = now
        return text.stopped and news.finish_reason is None
