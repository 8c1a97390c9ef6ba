"""The compiled operators: whether they are there, which instruction set they use, on how many threads.

`RAMIFY_KERNELS=torch` turns them off, and `RAMIFY_ISA` (portable, avx2, avx512, avx512bf16) chooses a variant; by
default the last one that the processor runs is taken. Without them every operator is its torch reference.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from types import ModuleType

from ramify.errors import ConfigError

KERNELS_VARIABLE = "RAMIFY_KERNELS"
ISA_VARIABLE = "RAMIFY_ISA"


@cache
def extension() -> ModuleType | None:
    """The compiled module, or None where it is turned off or was not built (`why_not` says which).

    Raises:
        ConfigError: `RAMIFY_KERNELS` or `RAMIFY_ISA` names what there is not.
    """
    wish = os.environ.get(KERNELS_VARIABLE, "auto")
    if wish not in ("auto", "native", "torch"):
        raise ConfigError(f"{KERNELS_VARIABLE}={wish!r} does not work: use 'auto', 'native' or 'torch'")
    if wish == "torch":
        return None
    try:
        module = importlib.import_module("ramify.kernels._native")
    except ImportError as error:
        if wish == "native":
            raise ConfigError(f"{KERNELS_VARIABLE}=native, but the native kernels cannot be loaded: {error}") from error
        return None
    _choose_isa(module)
    return module


def _choose_isa(module: ModuleType) -> None:
    wish = os.environ.get(ISA_VARIABLE)
    if not wish:
        return
    if wish not in module.available_isas():
        raise ConfigError(f"{ISA_VARIABLE}={wish!r} does not work here: use {', '.join(module.available_isas())}")
    module.set_isa(wish)


def why_not() -> str:
    """Why there is no compiled module; empty if there is one."""
    if extension() is not None:
        return ""
    if os.environ.get(KERNELS_VARIABLE) == "torch":
        return f"turned off by {KERNELS_VARIABLE}=torch"
    try:
        importlib.import_module("ramify.kernels._native")
    except ImportError as error:
        return f"not built or not loadable here ({error})"
    raise AssertionError("the compiled module loads, and was not taken")


def native() -> ModuleType:
    """The compiled module, where the caller knows that there is one."""
    module = extension()
    assert module is not None
    return module
