"""The text of one running sequence: what its tokens spell, where a stop string cuts it, and where its step ends.

Whoever follows a sequence uses this class, and an engine in a process of its own uses it too: it ends the sequence at
the very token at which its user will find that it ended, so that nothing is drawn behind the end of an answer.
"""

from __future__ import annotations

from ramify.engine.request import SequenceOutput, StepEnd, TextStart
from ramify.sampling import SamplingParams
from ramify.text.detokenizer import Detokenizer
from ramify.text.stop import StopStrings
from ramify.text.tokenizer import Tokenizer


class SequenceText:
    """Follows one sequence.

    Args:
        tokenizer: of the model.
        params: what stops it.
        start: where its text goes on, and where its step ends.

    Attributes:
        text: what may be shown so far: final characters, none of which can still become part of a stop string.
        stop_reason: the stop string, or the stop token id, that ended it.
        stopped: a stop string was found; whoever drives the engine finishes the sequence now.
        step_ended: it reached the end of its step; the same.
        detokenizer: where the text of a continuation goes on; None without text.
    """

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams, start: TextStart) -> None:
        self.text = ""
        self.stop_reason: str | int | None = None
        self.stopped = False
        self.step_ended = False
        self.detokenizer: Detokenizer | None = None
        if start.detokenize:
            self.detokenizer = Detokenizer.resume(tokenizer, start.skip_special_tokens, start.window, start.given)
        self._params = params
        self._num_tokens = 0
        self._stops = StopStrings(params.stop_strings, params.include_stop_str_in_output)
        self._step = start.step_end
        self._seen = ""  # the end of all text, in which a string that ends a step may have begun

    @property
    def ended(self) -> bool:
        """Whether the text says that the sequence is to end now."""
        return self.stopped or self.step_ended

    def push(self, output: SequenceOutput) -> str:
        """Take a step's news; returns the text that it adds."""
        before = len(self.text)
        for token in output.new_token_ids:
            self._num_tokens += 1
            if token == output.stop_token and not self._keep_stop_token(token):
                continue
            if self.detokenizer is not None and not self.stopped:
                self._take(self.detokenizer.push([token]))
        if self._step is not None and not self.stopped and output.finish_reason != "stop":
            self.step_ended = self._at_step_end(self._step, output)
        if output.finish_reason is not None and not self.ended:
            self._finish()
        return self.text[before:]

    def rest(self) -> str:
        """What is held back as the possible beginning of a stop string; gives it out."""
        rest = self._stops.flush()
        self.text += rest
        return rest

    def _finish(self) -> None:
        if self.detokenizer is not None:
            self._take(self.detokenizer.flush())
            if not self.stopped:
                self.rest()

    def _keep_stop_token(self, token: int) -> bool:
        """Whether the ending token's own text stays (a special token's is left out by the detokenizer anyway)."""
        if token in self._params.stop_token_ids:
            self.stop_reason = token
        return self._params.include_stop_str_in_output

    def _take(self, piece: str) -> None:
        honour = self._num_tokens >= self._params.min_tokens
        self.text += self._stops.push(piece, honour=honour)
        if self._step is not None:
            self._seen += piece
        if self._stops.match is not None:
            self.stopped = True
            self.stop_reason = self._stops.match.stop

    def _at_step_end(self, step: StepEnd, output: SequenceOutput) -> bool:
        found = any(stop in self._seen for stop in step.stop)
        if step.stop:
            self._seen = self._seen[max(0, len(self._seen) - max(map(len, step.stop)) + 1) :]
        if found or any(token in step.stop_token_ids for token in output.new_token_ids):
            return True
        return step.max_tokens is not None and self._num_tokens >= step.max_tokens


def start_of(params: SamplingParams) -> TextStart:
    """The beginning of an answer's text."""
    return TextStart(detokenize=params.detokenize, skip_special_tokens=params.skip_special_tokens)
