"""`ramify quantize` from the checkpoint to a folder that loads, and its report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ramify import LLM, SamplingParams
from ramify.cli.main import app
from tests.checkpoints import make_checkpoint


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAMIFY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model", "llama2", num_hidden_layers=2)


def quantize(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["quantize", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_the_folder_loads_and_the_report_says_what_it_costs(source: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    code, out, err = quantize(source, "-f", "w4a8", "-o", made, "--tokens", "60", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report == json.loads((made / "quantization_report.json").read_text())
    assert report["format"].startswith("w4a8")
    assert report["bytes"] < report["float_bytes"]
    assert report["divergence"]["num_tokens"] == 60
    assert report["divergence"]["kl"] > 0
    assert [entry["layer"] for entry in report["layers"]] == ["0", "1", "vocabulary"]
    assert len(report["products"]) == 2 * 4 + 2
    assert json.loads((made / "config.json").read_text())["quantization_config"]["quant_method"] == "ramify"
    params = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)
    with LLM(made, num_kv_blocks=16) as ours, LLM(source, quantization="w4a8", num_kv_blocks=16) as cached:
        answers = [llm.generate("Tom has 12", params, use_tqdm=False)[0].outputs[0].token_ids for llm in (ours, cached)]
    assert answers[0] == answers[1]


def test_text_of_the_users_chooses_scales_and_is_measured_on(source: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog.\n\nEach box holds 24 eggs; 3 boxes hold 72 eggs.\n")
    code, out, err = quantize(
        source, "-o", tmp_path / "made", "--text", text, "--calibration-text", text, "--no-layers"
    )
    assert code == 0, err
    assert "KL divergence" in out
    assert "rounded alone" not in out


def test_what_cannot_work_is_told_before_any_work(source: Path, tmp_path: Path) -> None:
    full, empty = tmp_path / "full", tmp_path / "empty.txt"
    full.mkdir()
    (full / "precious.txt").write_text("keep me")
    empty.write_text("\n\n")
    cases = [
        ((source, "-o", full), "there already"),
        ((source, "-o", tmp_path / "x", "-f", "w3a3"), "w4a8"),
        ((source, "-o", tmp_path / "x", "--text", empty), "no text"),
        ((source, "-o", tmp_path / "x", "-f", "w4a8:calibration=none", "--calibration-text", source / "config.json"),
         "drop one"),
    ]  # fmt: skip
    for arguments, said in cases:
        code, _, err = quantize(*arguments)
        assert (code, said in err) == (2, True), err
    assert (full / "precious.txt").read_text() == "keep me"
    assert not (tmp_path / "x").exists()


def test_what_is_quantised_already_is_refused(source: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    assert quantize(source, "-f", "w8a8:calibration=none", "-o", made, "--no-report")[0] == 0
    code, _, err = quantize(made, "-o", tmp_path / "again")
    assert code == 2
    assert "quantised already" in err


def test_the_cache_is_shown_and_cleared(source: Path) -> None:
    LLM(source, quantization="w8a8:calibration=none", num_kv_blocks=16).close()
    shown = CliRunner().invoke(app, ["cache", "--json"])
    assert json.loads(shown.stdout)["bytes"] > 0
    cleared = CliRunner().invoke(app, ["cache", "--clear", "--json"])
    assert json.loads(cleared.stdout)["freed_bytes"] >= json.loads(shown.stdout)["bytes"]
    assert json.loads(CliRunner().invoke(app, ["cache", "--json"]).stdout)["bytes"] == 0
