"""`Guide`: holds the draws of one sequence to the form of its answer and to its limit on thinking.

What may come next is a function of the sequence's tokens: the guide reads those that are new, and from the start again
where tokens were taken back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ramify.engine.thoughts import Thoughts
from ramify.errors import RequestError
from ramify.sampling import SamplingParams, TokenIds
from ramify.text.constraints import CompiledGrammar, Follower


class Guide:
    """Follows one sequence.

    Args:
        params: of the sequence.
        grammar: of its answer's form, if it has one.
        start: where the answer begins among its tokens.
    """

    def __init__(self, params: SamplingParams, grammar: CompiledGrammar | None, start: int) -> None:
        self.form = params.structured_outputs
        self._budget = params.thinking_token_budget
        self._grammar = grammar
        self._start = start
        self._thoughts = None if params.thinking_marks is None else Thoughts(params.thinking_marks, start)
        self._follower: Follower | None = None

    def holds(self, params: SamplingParams) -> bool:
        """Whether it is the guide for these parameters too."""
        marks = None if self._thoughts is None else self._thoughts.marks
        mine = (self.form, self._budget, marks)
        return mine == (params.structured_outputs, params.thinking_token_budget, params.thinking_marks)

    def rewind(self) -> None:
        """Tokens were taken back: read from the start again."""
        self._follower = None
        if self._thoughts is not None:
            self._thoughts = Thoughts(self._thoughts.marks, self._start)

    def copy(self) -> Guide:
        """One for a fork of the sequence."""
        made = object.__new__(Guide)
        made.form, made._budget, made._grammar, made._start = self.form, self._budget, self._grammar, self._start
        made._thoughts = None if self._thoughts is None else self._thoughts.copy()
        made._follower = None if self._follower is None else self._follower.copy()
        return made

    def apply(self, row: torch.Tensor, tokens: Sequence[int], stop_ids: frozenset[int]) -> bool:
        """Set the logits of what may not come next to -inf.

        Args:
            row: [vocabulary], changed in place.
            tokens: all tokens of the sequence.
            stop_ids: what ends it.

        Returns:
            Whether it ends here without another token: its answer is complete and the model has no end to draw.

        Raises:
            RequestError: the tokens do not keep the form (some were put in from outside), or following it takes too
                much work.
        """
        start = self._start
        openings: TokenIds = ()
        if self._thoughts is not None:
            self._thoughts.read(tokens)
            if self._thoughts.open:
                self._limit(self._thoughts, row, tokens, stop_ids)
                return False
            start, openings = self._thoughts.answer_start, self._thoughts.openings(tokens)
        return self._grammar is not None and self._hold(self._grammar, row, tokens[start:], stop_ids, openings)

    def _limit(self, thoughts: Thoughts, row: torch.Tensor, tokens: Sequence[int], stop_ids: frozenset[int]) -> None:
        """Thinking: free, up to the budget. An answer that has a form is not ended from within."""
        assert thoughts.opened is not None
        if self._budget is not None and len(tokens) - thoughts.opened >= self._budget:
            forced = thoughts.next_of_end(tokens)
            _keep_only(row, (forced,))
            if not torch.isfinite(row[forced]):  # other parameters forbade it
                row[forced] = 0.0
        elif self._grammar is not None and stop_ids:
            row[torch.tensor(sorted(stop_ids), device=row.device)] = -torch.inf

    def _hold(
        self,
        grammar: CompiledGrammar,
        row: torch.Tensor,
        answer: Sequence[int],
        stop_ids: frozenset[int],
        openings: TokenIds,
    ) -> bool:
        """The answer: what its form allows, and first of all what opens a thought."""
        follower = self._follower or grammar.follow()
        self._follower = None if openings else follower  # what an opening leads to is no answer
        if not follower.read(answer[follower.num_read :]):
            self._follower = None
            if not openings:
                raise RequestError("the tokens of the answer do not keep the form that structured_outputs ask for")
            _keep_only(row, openings)
            return False
        mask = torch.from_numpy(follower.allowed()).to(row.device)
        ends = _ends(grammar, stop_ids) if follower.complete else []
        extra = torch.tensor([*ends, *openings], device=row.device, dtype=torch.int64)
        kept = row[extra]
        row[: len(mask)].masked_fill_(~mask, -torch.inf)
        row[len(mask) :] = -torch.inf
        row[extra] = kept
        if not follower.complete or torch.isfinite(row.amax()):
            return False
        row[torch.tensor(ends, device=row.device, dtype=torch.int64)] = 0.0  # though other parameters forbade the end
        return not ends


def _keep_only(row: torch.Tensor, ids: TokenIds) -> None:
    wanted = torch.tensor(ids, device=row.device)
    kept = row[wanted]
    row.fill_(-torch.inf)
    row[wanted] = kept


def _ends(grammar: CompiledGrammar, stop_ids: frozenset[int]) -> list[int]:
    """What ends the sequence and is no text."""
    vocabulary = grammar.vocabulary
    size = len(vocabulary)
    return sorted(i for i in stop_ids if i >= size or i in vocabulary.end_ids or not vocabulary.pieces[i])
