"""A model's name leads to a folder, or to an error that says where it was looked for; the hub is asked last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from ramify.errors import ModelNotFoundError
from ramify.models.hub import WANTED_FILES, resolve_model
from tests.checkpoints import make_checkpoint


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Puts a record in the hub's place; each entry is one download that was asked for."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def download(repository: str, **options: Any) -> str:
        calls.append((repository, options))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return calls


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path, asked: list[Any]) -> None:
    folder = make_checkpoint(tmp_path / "org" / "model", "qwen2", tokenizer=False)
    assert resolve_model(str(folder)) == folder
    assert resolve_model(folder) == folder
    assert asked == []


def test_an_existing_relative_folder_wins_over_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    make_checkpoint(tmp_path / "org" / "model", "qwen2", tokenizer=False)
    monkeypatch.chdir(tmp_path)
    assert resolve_model("org/model") == Path("org/model")
    assert asked == []


@pytest.mark.parametrize(
    "name", ["./model", "../model", "/no/such/model", "~/no-such-model", "a/b/c", "model", "a\\b", ""]
)
def test_a_path_that_does_not_exist_is_an_error_without_asking_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"no such folder exists|without config\.json"):
        resolve_model(name)
    assert asked == []


def test_a_path_object_never_goes_to_the_hub(asked: list[Any]) -> None:
    with pytest.raises(ModelNotFoundError, match="no such folder"):
        resolve_model(Path("org/model"))
    assert asked == []


def test_a_folder_without_a_config_and_a_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"without config\.json"):
        resolve_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match="is a file"):
        resolve_model(tmp_path / "model.safetensors")


def test_a_hub_id_is_fetched_at_its_revision_without_code_or_pickles(tmp_path: Path, asked: list[Any]) -> None:
    assert resolve_model("org/some-model.v2", revision="main") == tmp_path
    (repository, options), *others = asked
    assert (repository, options["revision"], others) == ("org/some-model.v2", "main", [])
    assert options["allow_patterns"] == list(WANTED_FILES)
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in WANTED_FILES)


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("offline"), OSError("no route"), TimeoutError("slow")])
def test_a_hub_that_cannot_be_reached_says_what_was_tried_and_what_to_do(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(repository: str, **options: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(ModelNotFoundError, match=r"org/model could not be fetched .*give the folder") as caught:
        resolve_model("org/model")
    assert caught.value.__cause__ is error


def test_the_bundled_models_are_named_without_a_path(asked: list[Any]) -> None:
    with pytest.raises(ModelNotFoundError, match="nano-prm"):
        resolve_model("nano-big")
    assert asked == []
