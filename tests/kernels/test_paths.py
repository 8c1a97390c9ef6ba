from __future__ import annotations

import pytest

from ramify.kernels import native
from ramify.kernels.paths import operator_paths


def test_every_operator_names_its_path_on_every_instruction_set(isa: str) -> None:
    assert {found.path for found in operator_paths()} == {f"native {isa}"}
    assert all(found.why for found in operator_paths())


def test_what_is_turned_off_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    native.extension.cache_clear()
    monkeypatch.setenv("RAMIFY_KERNELS", "torch")
    found = operator_paths()
    monkeypatch.undo()
    native.extension.cache_clear()
    assert {each.path for each in found} == {"torch"}
    assert all("RAMIFY_KERNELS" in each.why for each in found)
