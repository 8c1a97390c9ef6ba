"""The vocabulary of the model that a run draws from, for constraints on its tokens."""

from __future__ import annotations

from functools import lru_cache

from ramify.errors import CapabilityError
from ramify.strategies.kernel.context import Context
from ramify.text.constraints import Vocabulary


def model_vocabulary(context: Context) -> Vocabulary:
    """The bytes of each token of the run's model, and what ends its answers.

    Raises:
        CapabilityError: the backend does not tell.
    """
    from ramify.backends.cross_loop import CrossLoopBackend
    from ramify.backends.local import LocalBackend  # with torch, for which listing the methods need not wait
    from ramify.backends.toy import ToyBackend

    backend = context._backend
    if isinstance(backend, CrossLoopBackend):
        backend = backend.inner
    if isinstance(backend, LocalBackend):
        return Vocabulary.of(backend.tokenizer, backend.engine.model_config.eos_token_ids)
    if isinstance(backend, ToyBackend):
        return _toy_vocabulary(backend.model.texts, backend.model.eos)
    raise CapabilityError(
        f"{type(backend).__name__} does not tell its tokens, which constraints need: use the local engine (LLM(...))"
    )


@lru_cache(maxsize=8)
def _toy_vocabulary(texts: tuple[str, ...], eos: int) -> Vocabulary:
    pieces = tuple(b"" if index == eos else text.encode() for index, text in enumerate(texts))
    return Vocabulary(pieces, frozenset({eos}))
