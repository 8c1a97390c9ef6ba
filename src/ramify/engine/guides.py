"""`Guides`: gives sequences the guides that their parameters ask for, and keeps those that wait for a grammar."""

from __future__ import annotations

from collections.abc import Container, Iterable
from concurrent.futures import Future

from ramify.engine.grammars import Grammars
from ramify.engine.guide import Guide
from ramify.engine.sequence import Sequence
from ramify.errors import EngineError, RamifyError, RequestError
from ramify.sampling import SamplingParams, StructuredOutputsParams
from ramify.text.constraints import CompiledGrammar


class Guides:
    """Of one engine.

    Args:
        grammars: the forms of answers over its vocabulary; without, it takes none.
    """

    def __init__(self, grammars: Grammars | None) -> None:
        self._grammars = grammars
        self._waiting: list[tuple[Sequence, Future[CompiledGrammar] | None]] = []

    def __bool__(self) -> bool:
        """Whether sequences wait."""
        return bool(self._waiting)

    def check(self, params: SamplingParams) -> None:
        """Raises `RequestError` where the engine cannot hold an answer to a form."""
        if params.structured_outputs is not None and self._grammars is None:
            raise RequestError("this engine was made without a vocabulary and takes no structured_outputs")

    def read(self, forms: Iterable[StructuredOutputsParams | None]) -> None:
        """Read forms, and wait until that is done. Raises `ConfigError` for one that cannot be used."""
        for form in forms:
            if form is not None and self._grammars is not None:
                self._grammars.get(form).result()

    def ready(self, sequence: Sequence) -> bool:
        """Whether a sequence may run now; if not, `settle` gives it back."""
        params = sequence.params
        if params.structured_outputs is None and params.thinking_token_budget is None:
            sequence.guide = None
            return True
        if sequence.guide is not None and sequence.guide.holds(params):
            return True
        form = params.structured_outputs
        grammar = None if form is None or self._grammars is None else self._grammars.get(form)
        self._waiting.append((sequence, grammar))
        return False

    def settle(
        self, alive: Container[int], patience_s: float
    ) -> tuple[list[Sequence], list[tuple[Sequence, RamifyError]]]:
        """The sequences that need not wait any more: those that have their guide, and those whose form cannot be used.

        Args:
            alive: ids of the sequences that are still wanted.
            patience_s: how long to wait for the first of them.
        """
        waiting, self._waiting = self._waiting, []
        ready: list[Sequence] = []
        failed: list[tuple[Sequence, RamifyError]] = []
        for sequence, reading in waiting:
            if sequence.id not in alive:
                continue
            try:
                grammar = None if reading is None else reading.result(patience_s)
            except TimeoutError:
                patience_s = 0.0
                self._waiting.append((sequence, reading))
            except RamifyError as error:
                failed.append((sequence, error))
            except Exception as fault:
                broken = EngineError(f"the form of the answer cannot be read: {type(fault).__name__}: {fault}")
                broken.__cause__ = fault
                failed.append((sequence, broken))
            else:
                for each in (sequence, *sequence.siblings):
                    each.guide = Guide(each.params, grammar, each.answer_start)
                ready.append(sequence)
        return ready, failed
