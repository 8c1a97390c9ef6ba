"""The text of one running sequence: what its tokens spell, cut at the first stop string."""

from __future__ import annotations

from ramify.engine.request import SequenceOutput
from ramify.sampling import SamplingParams
from ramify.text.detokenizer import Detokenizer
from ramify.text.stop import StopStrings
from ramify.text.tokenizer import Tokenizer


class SequenceText:
    """Follows one sequence.

    Attributes:
        text: what may be shown so far: final characters, none of which can still become part of a stop string.
        stop_reason: the stop string, or the stop token id, that ended it.
        stopped: a stop string was found; whoever drives the engine finishes the sequence now.
    """

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams) -> None:
        self.text = ""
        self.stop_reason: str | int | None = None
        self.stopped = False
        self._params = params
        self._num_tokens = 0
        self._eos = tokenizer.eos_token_id
        self._detokenizer = Detokenizer(tokenizer, params.skip_special_tokens) if params.detokenize else None
        self._stops = StopStrings(params.stop_strings, params.include_stop_str_in_output)

    def push(self, output: SequenceOutput) -> str:
        """Take a step's news; returns the text that it adds."""
        before = len(self.text)
        for token in output.new_token_ids:
            self._num_tokens += 1
            if token == output.stop_token and not self._keep_stop_token(token):
                continue
            if self._detokenizer is not None and not self.stopped:
                self._take(self._detokenizer.push([token]))
        if output.finish_reason is not None and self._detokenizer is not None and not self.stopped:
            self._take(self._detokenizer.flush())
            if not self.stopped:
                self.text += self._stops.flush()
        return self.text[before:]

    def _keep_stop_token(self, token: int) -> bool:
        """Whether the ending token's own text stays (a special token's is left out by the detokenizer anyway)."""
        if token in self._params.stop_token_ids:
            self.stop_reason = token
        return self._params.include_stop_str_in_output

    def _take(self, piece: str) -> None:
        honour = self._num_tokens >= self._params.min_tokens
        self.text += self._stops.push(piece, honour=honour)
        if self._stops.match is not None:
            self.stopped = True
            self.stop_reason = self._stops.match.stop
