"""The grammars of an engine: read once, beside the steps, and kept for whoever asks for the same form again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from ramify.sampling import StructuredOutputsParams
from ramify.text.constraints import CompiledGrammar, Vocabulary, compile_form, deep_thread, prepare_vocabulary

_MOST_KEPT = 32
"""Forms that are remembered; the worst of them hold 40 MB."""


class Grammars:
    """Answers' forms over one model's vocabulary.

    Args:
        vocabulary: gives the model's; asked for with the first form.
    """

    def __init__(self, vocabulary: Callable[[], Vocabulary]) -> None:
        self._read_vocabulary = vocabulary
        self._vocabulary: Vocabulary | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._kept: OrderedDict[StructuredOutputsParams, Future[CompiledGrammar]] = OrderedDict()

    def warm(self, vocabulary: Vocabulary) -> None:
        """Get ready for the first form: with a large vocabulary that takes a second in which nothing else runs."""
        self._vocabulary = vocabulary
        prepare_vocabulary(vocabulary)

    def get(self, form: StructuredOutputsParams) -> Future[CompiledGrammar]:
        """The grammar of a form, now or later; fails with `ConfigError` for one that cannot be used."""
        known = self._kept.get(form)
        if known is None or (known.done() and known.exception() is None and known.result().worn):
            if self._thread is None:
                self._thread = deep_thread("ramify-grammars")
            known = self._kept[form] = self._thread.submit(self._compile, form)
        self._kept.move_to_end(form)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return known

    def _compile(self, form: StructuredOutputsParams) -> CompiledGrammar:
        if self._vocabulary is None:
            self._vocabulary = self._read_vocabulary()
        return compile_form(form, self._vocabulary)
