"""Vectors of texts agree with transformers, however the prompt is cut, cached or shared; a step not done is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from ramify.config import EngineConfig
from ramify.engine.core import EngineCore
from ramify.engine.loading import load_engine
from ramify.engine.request import EngineRequest
from ramify.errors import CheckpointError, PromptTooLongError, RequestError, UnsupportedModelError
from ramify.models.config import load_config
from ramify.models.pooling import Pooling
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from tests.checkpoints import make_checkpoint
from tests.engine.harness import assert_whole, prompt

LENGTHS = (1, 5, 16, 17, 40, 70)
MODES = {"last": "pooling_mode_lasttoken", "mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}


def sentence_files(folder: Path, pooling: dict[str, Any], modules: tuple[str, ...] = ("Pooling", "Normalize")) -> Path:
    """Write the files of a sentence-transformers checkpoint beside the weights."""
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize", "Dense": "3_Dense"}
    listed = [
        {"path": paths[kind], "type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", *modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def embed(core: EngineCore, *texts: tuple[int, ...]) -> list[np.ndarray]:
    params = SamplingParams(max_tokens=0, detokenize=False)
    ids = [core.add(EngineRequest(text, params, BranchKey.root(0), embed=True))[0] for text in texts]
    found: dict[int, Any] = {}
    while core.has_work():
        found |= {output.sequence_id: output for output in core.step().outputs}
    assert all(found[i].error is None and found[i].finish_reason == "length" for i in ids)
    assert_whole(core)
    return [found[i].embedding for i in ids]


def engine(folder: Path, **options: Any) -> EngineCore:
    return load_engine(folder, EngineConfig(**{"num_kv_blocks": 40, "max_num_batched_tokens": 512, **options}))[0]


def expected(folder: Path, mode: str, normalise: bool) -> list[np.ndarray]:
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    vectors = []
    for length in LENGTHS:
        with torch.inference_mode():
            rows = model(torch.tensor([prompt(length, length)])).last_hidden_state[0]
        vector = {"last": rows[-1], "mean": rows.mean(0), "cls": rows[0]}[mode]
        vectors.append((torch.nn.functional.normalize(vector, dim=0) if normalise else vector).numpy())
    return vectors


@pytest.mark.parametrize("family", ["llama2", "mistral", "qwen2", "qwen3"])
def test_models_without_a_head_agree_with_transformers(family: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, family, head="Model", tokenizer=False)
    assert "embed_tokens.weight" in load_file(folder / "model.safetensors")  # no prefix
    config = load_config(folder)
    assert (config.head, config.pooling, config.embeds) == ("none", Pooling(), True)
    vectors = embed(engine(folder), *(prompt(length, length) for length in LENGTHS))
    for vector, reference in zip(vectors, expected(folder, "last", True), strict=True):
        assert np.abs(vector - reference).max() < 1e-5
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("normalise", [True, False])
def test_each_pooling_agrees_and_depends_on_nothing_but_the_text(mode: str, normalise: bool, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "qwen3", tokenizer=False)  # a causal model: it writes texts too
    modules = ("Pooling", "Normalize") if normalise else ("Pooling",)
    others = dict.fromkeys(MODES.values(), False)
    sentence_files(folder, {"word_embedding_dimension": 44, **others, MODES[mode]: True}, modules)
    texts = [prompt(length, length) for length in LENGTHS]
    vectors = embed(engine(folder), *texts)
    for vector, reference in zip(vectors, expected(folder, mode, normalise), strict=True):
        assert np.abs(vector - reference).max() < 1e-4
    longest = max(map(len, texts))
    for options in (
        {"max_num_batched_tokens": 16, "max_num_seqs": 4},
        {"num_kv_blocks": longest // 16 + 3},
        {"max_num_seqs": 1},
    ):
        core = engine(folder, **options)
        for _ in range(2):  # the second time, prefixes are cached
            assert all(np.array_equal(*pair) for pair in zip(embed(core, *texts), vectors, strict=True)), options
    assert (core.counters.prompt_cached > 0) == (mode == "last")  # the others need every row


def test_an_embedding_checkpoint_may_leave_out_its_head_and_its_prefix(tmp_path: Path) -> None:
    folder = sentence_files(make_checkpoint(tmp_path, "llama2", tokenizer=False), {MODES["last"]: True})
    whole = embed(engine(folder), prompt(20))[0]
    weights = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("model."): value for name, value in weights.items() if not name.startswith("lm_head.")}
    save_file(bare, folder / "model.safetensors")
    core = engine(folder)
    assert core.model_config.head == "none"
    assert np.array_equal(embed(core, prompt(20))[0], whole)
    with pytest.raises(RequestError, match="vectors and no tokens"):
        core.add(EngineRequest(prompt(20), SamplingParams(max_tokens=1), BranchKey.root(0)))
    save_file(
        {**bare, "layers.0.self_attn.q_proj.bias": weights["model.norm.weight"].clone()}, folder / "model.safetensors"
    )
    with pytest.raises(CheckpointError, match="does not account for"):
        engine(folder)


def test_a_model_with_labels_gives_no_vectors(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "qwen2", head="ForSequenceClassification", tokenizer=False, num_labels=1)
    core = engine(folder)
    with pytest.raises(RequestError, match="gives no vectors"):
        core.add(EngineRequest(prompt(9), SamplingParams(max_tokens=0), BranchKey.root(0), embed=True))


def test_what_the_files_say_is_read(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "qwen3", head="Model", tokenizer=False, matryoshka_dimensions=[8, 16])
    sentence_files(folder, {"pooling_mode": "mean", "include_prompt": True}, ("Pooling",))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 30, "do_lower_case": false}')
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"a": "A: "}, "default_prompt_name": "a"}')
    assert load_config(folder).pooling == Pooling("mean", False, 30, "A: ", True, (8, 16))
    core = engine(folder)
    with pytest.raises(PromptTooLongError, match="embeds 30 at most"):
        core.add(EngineRequest(prompt(31), SamplingParams(max_tokens=0), BranchKey.root(0), embed=True))


@pytest.mark.parametrize(
    ("pooling", "modules", "error", "words"),
    [
        ({"pooling_mode_max_tokens": True}, ("Pooling",), UnsupportedModelError, "pooling_mode_max_tokens"),
        ({MODES["mean"]: True, MODES["cls"]: True}, ("Pooling",), UnsupportedModelError, "and"),
        ({}, ("Pooling",), UnsupportedModelError, "without a mode"),
        ({MODES["mean"]: True, "include_prompt": False}, ("Pooling",), UnsupportedModelError, "include_prompt"),
        ({MODES["mean"]: True}, ("Pooling", "Dense"), UnsupportedModelError, "Dense"),
        ({}, (), CheckpointError, "no Pooling module"),
    ],
)
def test_a_step_that_is_not_done_is_refused(
    pooling: dict[str, Any], modules: tuple[str, ...], error: type[Exception], words: str, tmp_path: Path
) -> None:
    folder = sentence_files(make_checkpoint(tmp_path, "qwen3", head="Model", tokenizer=False), pooling, modules)
    with pytest.raises(error, match=words):
        load_config(folder)
