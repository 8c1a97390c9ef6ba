"""A continuation while it runs: its tokens, its text, and where its step or its answer ends."""

from __future__ import annotations

from typing import Any

from ramify.backends.base import Node, TokenDetail
from ramify.engine.request import SequenceOutput, TextStart
from ramify.engine.text_output import SequenceText
from ramify.errors import EngineError, RamifyError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from ramify.text.detokenizer import Detokenizer
from ramify.text.tokenizer import Tokenizer


class Branch:
    """Follows one sequence of the engine until it ends or reaches a step's end.

    Attributes:
        sequence_id: of the engine.
        parent: the node it continues.
        ended: no more is to come.
        finish_reason: why the answer is finished; None at a step's end.
        error: why it failed.
    """

    def __init__(
        self,
        sequence_id: int,
        key: BranchKey,
        parent: Node,
        params: SamplingParams,
        start: TextStart,
        tokenizer: Tokenizer,
    ) -> None:
        self.sequence_id = sequence_id
        self.parent = parent
        self.ended = False
        self.started = False
        self.finish_reason: str | None = None
        self.error: RamifyError | None = None
        self._key = key
        self._params = params
        self._text = SequenceText(tokenizer, params, start)
        self._tokens: list[int] = []
        self._details: list[TokenDetail] = []
        self._steps: tuple[int, int] | None = None

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

    @property
    def detokenizer(self) -> Detokenizer:
        """Goes on where its text stopped."""
        assert self._text.detokenizer is not None
        return self._text.detokenizer

    def push(self, output: SequenceOutput) -> bool:
        """Take a step's news; returns whether that ended it."""
        self.started = True
        self._steps = (output.step if self._steps is None else self._steps[0], output.step)
        if output.error is not None:
            self.error, self.ended = output.error, True
            return True
        self._details += [
            TokenDetail(entry.logprob, entry.top, entry.mean, entry.log_mass) for entry in output.new_logprobs
        ]
        self._tokens += output.new_token_ids
        self._text.push(output)
        if self._text.stopped:
            self.ended, self.finish_reason = True, "stop"
        elif self._text.step_ended:
            self.ended = True
        elif output.finish_reason is not None:
            self.ended, self.finish_reason = True, output.finish_reason
        return self.ended

    def node(self, handle: Any) -> Node:
        """The node that it became."""
        parent = self.parent
        known = self._params.logprobs is not None and (parent.parent is None or parent.token_logprobs is not None)
        logprobs = tuple(detail.logprob for detail in self._details)
        if not self._text.stopped:
            self._text.rest()
        return Node(
            key=self._key,
            parent=parent,
            tokens=(*parent.tokens, *self._tokens),
            text=parent.text + self._text.text,
            prompt_tokens=parent.prompt_tokens,
            token_logprobs=(*(parent.token_logprobs or ()), *logprobs) if known else None,
            model=parent.model,
            finish_reason=self.finish_reason,
            step_end=self.open,
            num_new_tokens=len(self._tokens),
            details=tuple(self._details),
            usage=parent.usage,
            steps=self._steps,
            handle=handle,
        )
