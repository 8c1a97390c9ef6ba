"""A continuation while it runs: its tokens, its text, and where its step or its answer ends."""

from __future__ import annotations

from typing import Any

from ramify.backends.base import Node, StepEnd, TokenDetail
from ramify.engine.request import SequenceOutput
from ramify.errors import EngineError, RamifyError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams, TokenIds
from ramify.text.stop import StopStrings
from ramify.text.tokenizer import Tokenizer


class Branch:
    """Follows one sequence of the engine until it ends or reaches a step's end.

    Attributes:
        sequence_id: of the engine.
        parent: the node it continues.
        ended: no more is to come.
        finish_reason: why the answer is finished; None at a step's end.
        error: why it failed.
        detokenizer: goes on where the parent's text stopped.
    """

    def __init__(
        self,
        sequence_id: int,
        key: BranchKey,
        parent: Node,
        params: SamplingParams,
        step_end: StepEnd | None,
        tokenizer: Tokenizer,
    ) -> None:
        self.sequence_id = sequence_id
        self.parent = parent
        self.ended = False
        self.started = False
        self.finish_reason: str | None = None
        self.error: RamifyError | None = None
        self.detokenizer = parent.handle.detokenizer.copy()
        self._key = key
        self._params = params
        self._step_end = step_end or StepEnd()
        self._stops = StopStrings(params.stop_strings, params.include_stop_str_in_output)
        self._text = ""
        self._shown = ""
        self._tokens: list[int] = []
        self._details: list[TokenDetail] = []
        self._stopped_by: int | None = None

    @classmethod
    def released(cls, sequence_id: int) -> Branch:
        """What a waiting extension is told when its node was released."""
        branch = cls.__new__(cls)
        branch.sequence_id = sequence_id
        branch.error = EngineError("the branch was released while it ran")
        return branch

    @property
    def open(self) -> bool:
        """Whether its node can be extended."""
        return self.ended and self.finish_reason is None

    def push(self, output: SequenceOutput) -> bool:
        """Take a step's news; returns whether that ended it."""
        self.started = True
        if output.error is not None:
            self.error, self.ended = output.error, True
            return True
        self._details += [
            TokenDetail(entry.logprob, entry.top, entry.mean, entry.log_mass) for entry in output.new_logprobs
        ]
        for token in output.new_token_ids:
            self._tokens.append(token)
            self._take(self.detokenizer.push([token]) if self._is_text(token, output) else "")
        if output.finish_reason == "stop" or self._stops.match is not None:
            self._end("stop")
        elif self._at_step_end(output.new_token_ids):
            self.ended = True
        elif output.finish_reason is not None:
            self._end(output.finish_reason)
        return self.ended

    def node(self, handle: Any) -> Node:
        """The node that it became."""
        parent = self.parent
        known = self._params.logprobs is not None and (parent.parent is None or parent.token_logprobs is not None)
        logprobs = tuple(detail.logprob for detail in self._details)
        text = self._shown if self._stops.match is not None else self._text
        return Node(
            key=self._key,
            parent=parent,
            tokens=(*parent.tokens, *self._tokens),
            text=parent.text + text,
            prompt_tokens=parent.prompt_tokens,
            token_logprobs=(*(parent.token_logprobs or ()), *logprobs) if known else None,
            model=parent.model,
            finish_reason=self.finish_reason,
            step_end=self.open,
            num_new_tokens=len(self._tokens),
            details=tuple(self._details),
            usage=parent.usage,
            handle=handle,
        )

    def _is_text(self, token: int, output: SequenceOutput) -> bool:
        return token != output.stop_token or self._params.include_stop_str_in_output

    def _take(self, piece: str) -> None:
        self._text += piece
        self._shown += self._stops.push(piece, honour=len(self._tokens) >= self._params.min_tokens)

    def _at_step_end(self, new: TokenIds | list[int]) -> bool:
        end = self._step_end
        if any(token in end.stop_token_ids for token in new) or any(stop in self._text for stop in end.stop):
            return True
        return end.max_tokens is not None and len(self._tokens) >= end.max_tokens

    def _end(self, reason: str) -> None:
        self.ended, self.finish_reason = True, reason
        if self._stops.match is None:
            self._take(self.detokenizer.flush())
