"""Reward models of every published form give the scores that transformers computes from the same checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from ramify.backends.base import Node
from ramify.backends.local import LocalBackend
from ramify.config import EngineConfig
from ramify.engine.loading import ModelToLoad, load_engine, load_engines
from ramify.engine.request import EngineRequest
from ramify.errors import ConfigError, RequestError, ScorerError
from ramify.models.reward_head import RewardHead
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from ramify.scoring import Problem
from ramify.scoring.orm import OutcomeReward
from ramify.scoring.prm import ProcessReward
from ramify.scoring.scorers import checked_scores
from tests.checkpoints import byte_level_bpe, make_checkpoint
from tests.engine.harness import checkpoint

TOLERANCE = 2e-4
PROMPT = "Tom has 12 apples"
PARTS = ("12 + 7", " = 19.\nEach box", " holds\n", "\n3 boxes")
"""An answer in pieces: cut inside a step, behind one, and with an empty line."""
MARK = "<|system|>"
Reference = Callable[[Path, list[int]], torch.Tensor]
"""Scores at every position of some ids, [T]."""


@dataclass(frozen=True)
class Form:
    """One published form of a reward model."""

    make: Callable[[Path], Path]
    reference: Reference
    options: dict[str, Any] = field(default_factory=dict)
    marks: bool = False


@cache
def reference(name: str, folder: Path) -> Any:
    """A checkpoint as a class of transformers loads it."""
    loaded = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return loaded.eval()


def hidden_states(folder: Path, ids: list[int]) -> torch.Tensor:
    """Behind the last norm, [T, hidden]."""
    with torch.no_grad():
        return reference("AutoModel", folder)(torch.tensor([ids])).last_hidden_state[0]


def of_class(name: str) -> Callable[[Path, list[int]], torch.Tensor]:
    """The logits of a class of transformers, [T, columns]."""

    def logits(folder: Path, ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return reference(name, folder)(torch.tensor([ids])).logits[0]

    return logits


def labels_of_tokens(folder: Path, ids: list[int]) -> torch.Tensor:
    return torch.softmax(of_class("AutoModelForTokenClassification")(folder, ids), -1)[:, 1]


def values_of_tokens(folder: Path, ids: list[int]) -> torch.Tensor:
    return torch.sigmoid(of_class("AutoModelForTokenClassification")(folder, ids)[:, 0])


def two_tokens(folder: Path, ids: list[int]) -> torch.Tensor:
    good, bad = (byte_level_bpe().token_to_id(text) for text in "19")
    return torch.softmax(of_class("AutoModelForCausalLM")(folder, ids)[:, [good, bad]], -1)[:, 0]


def two_layers(folder: Path, ids: list[int]) -> torch.Tensor:
    weights = load_file(folder / "model.safetensors")
    score = torch.nn.Sequential(
        torch.nn.Linear(*weights["score.0.weight"].shape), torch.nn.ReLU(), torch.nn.Linear(48, 2)
    )
    score.load_state_dict({name[6:]: tensor for name, tensor in weights.items() if name.startswith("score.")})
    with torch.no_grad():
        return torch.softmax(score(hidden_states(folder, ids)), -1)[:, 1]


def value_head(folder: Path, ids: list[int]) -> torch.Tensor:
    weights = load_file(folder / "model.safetensors")
    values = hidden_states(folder, ids) @ weights["v_head.summary.weight"].T + weights["v_head.summary.bias"]
    return torch.sigmoid(values[:, 0])


def with_weights(folder: Path, architecture: str | None = None, **shapes: tuple[int, ...]) -> Path:
    """Random tensors added to a checkpoint, under an architecture's name."""
    generator = torch.Generator().manual_seed(5)
    weights = load_file(folder / "model.safetensors")
    for name, shape in shapes.items():
        weights[name] = torch.randn(shape, generator=generator) * 0.12
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    if architecture is not None:
        config["architectures"] = [architecture]
        config["auto_map"] = {"AutoModel": f"modeling.{architecture}"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def qwen_prm(path: Path) -> Path:
    layers = {"score.0.weight": (48, 48), "score.0.bias": (48,), "score.2.weight": (2, 48), "score.2.bias": (2,)}
    return with_weights(make_checkpoint(path, "qwen2.5", seed=1), "Qwen2ForProcessRewardModel", **layers)


def skywork_prm(path: Path) -> Path:
    shapes = {"v_head.summary.weight": (1, 56), "v_head.summary.bias": (1,)}
    return with_weights(make_checkpoint(path, "qwen2", seed=2), "Qwen2ForPrmModel", **shapes)


def trl_value_head(path: Path) -> Path:
    shapes = {"v_head.summary.weight": (1, 48), "v_head.summary.bias": (1,)}
    return with_weights(make_checkpoint(path, "llama2", seed=2), **shapes)


def classes(family: str, count: int) -> Callable[[Path], Path]:
    return lambda path: make_checkpoint(path, family, seed=3, head="ForTokenClassification", num_labels=count)


LINES = {"step_token": "\n"}
FORMS = {
    "classes, llama": Form(classes("llama2", 2), labels_of_tokens, {**LINES, "good_label": 1}),
    "classes behind a mark, qwen2": Form(
        classes("qwen2", 2), labels_of_tokens, {**LINES, "good_label": 1, "mark": MARK}, marks=True
    ),
    "Qwen2.5-Math-PRM": Form(qwen_prm, two_layers, {**LINES, "mark": MARK}, marks=True),
    "two tokens, nano-prm": Form(
        lambda path: make_checkpoint(path, "llama3", seed=4), two_tokens, {**LINES, "good_token": "1", "bad_token": "9"}
    ),
    "two tokens behind a mark, Math-Shepherd": Form(
        lambda path: make_checkpoint(path, "mistral", seed=4),
        two_tokens,
        {**LINES, "good_token": "1", "bad_token": "9", "mark": MARK},
        marks=True,
    ),
    "one value, mistral": Form(classes("mistral", 1), values_of_tokens, LINES),
    "value head, TRL": Form(trl_value_head, value_head, LINES),
    "value head, Skywork": Form(skywork_prm, value_head),
}
OUTCOMES = {
    "one label, llama": ("llama2", 1, {}),
    "one label, qwen2": ("qwen2", 1, {}),
    "two labels, qwen3": ("qwen3", 2, {"good_label": 1}),
}


@cache
def folder_of(name: str) -> Path:
    return FORMS[name].make(Path(mkdtemp(prefix="ramify-reward-")) / "model")


@cache
def outcome_folder(name: str) -> Path:
    family, count, _ = OUTCOMES[name]
    path = Path(mkdtemp(prefix="ramify-orm-")) / "model"
    return make_checkpoint(path, family, seed=6, head="ForSequenceClassification", num_labels=count)


def load(folder: Path, options: dict[str, Any]) -> LocalBackend:
    return LocalBackend.load(checkpoint("llama2"), {str(folder): options}, num_kv_blocks=60, max_num_seqs=16)


async def path_of(backend: LocalBackend, seed: int, parts: tuple[str, ...] = PARTS) -> list[Node]:
    """A root, and an answer that grows by known parts."""
    nodes = [await backend.root({"prompt": PROMPT}, BranchKey.root(seed))]
    for part in parts:
        key = nodes[-1].key.child(0)
        nodes.append(await backend.append(nodes[-1], backend.encode(part), key))
    return nodes


def expected(folder: Path, form: Form, prompt: tuple[int, ...], text: list[str]) -> list[float]:
    """Scores of an answer that is given as pieces which were encoded one by one."""
    ids, places, blank = list(prompt), [], True
    mark = byte_level_bpe().token_to_id(MARK)
    for token in (token for piece in text for token in byte_level_bpe().encode(piece).ids):
        said = byte_level_bpe().decode([token])
        blank &= not said.strip()
        if "\n" in said and form.marks:
            assert not said.strip(), "the tokenizer of the tests has line breaks of their own"
            ids += [token] if blank else [mark, token]
            places += [] if blank else [len(ids) - 2]
            blank = True
        else:
            ids.append(token)
            places += [len(ids) - 1] if "\n" in said else []
            blank |= "\n" in said
    if form.marks and not blank:
        ids.append(mark)
    if (not blank) if form.marks else places[-1:] != [len(ids) - 1]:
        places.append(len(ids) - 1)
    return form.reference(folder, ids)[places].tolist()


def engine_reads(backend: LocalBackend) -> int:
    counters = next(iter(backend._rewards.values())).engine.core.counters
    return counters.prompt + counters.appended


@pytest.mark.parametrize("name", FORMS)
async def test_scores_agree_with_transformers_however_the_tree_was_scored(name: str) -> None:
    form, folder = FORMS[name], folder_of(name)
    async with load(folder, form.options) as backend:
        (model,) = backend._rewards
        steps = await path_of(backend, 1)
        wanted = [expected(folder, form, steps[0].prompt_tokens, list(PARTS[:end])) for end in range(1, 5)]
        assert np.ptp(wanted[-1]) > 100 * TOLERANCE
        charged = 0
        for node, scores in zip(steps[1:], wanted, strict=True):  # each continues from the one before
            (found,) = await backend.reward([node], model)
            np.testing.assert_allclose(found.scores, scores, atol=TOLERANCE)
            assert found.range == (0.0, 1.0)
            charged += found.num_tokens
        assert charged == engine_reads(backend)

        again = await path_of(backend, 2)  # one node, from the prompt
        (whole,) = await backend.reward([again[-1]], model)
        np.testing.assert_array_equal(whole.scores, found.scores)

        root = await backend.root({"prompt": PROMPT}, BranchKey.root(3))  # several that share a prefix
        trunk = await backend.append(root, backend.encode(PARTS[0]), root.key.child(0))
        (before,) = await backend.reward([trunk], model)
        tails = (PARTS[1], " = 72\n", "0")
        twigs = [
            await backend.append(trunk, backend.encode(tail), trunk.key.child(place))
            for place, tail in enumerate(tails)
        ]
        reads = engine_reads(backend)
        results = await backend.reward(twigs, model)
        assert sum(result.num_tokens for result in results) == engine_reads(backend) - reads
        for tail, result in zip(tails, results, strict=True):
            scores = expected(folder, form, root.prompt_tokens, [PARTS[0], tail])
            np.testing.assert_allclose(result.scores, scores, atol=TOLERANCE)
        assert before.num_tokens >= len(root.prompt_tokens)
        backend.release([*steps, *again, *twigs, trunk, root])
        core = next(iter(backend._rewards.values())).engine.core
        assert core.num_free_blocks == core.scheduler.pool.num_usable


@pytest.mark.parametrize("name", OUTCOMES)
async def test_outcome_rewards_agree_with_transformers(name: str) -> None:
    _, count, options = OUTCOMES[name]
    folder = outcome_folder(name)
    logits = of_class("AutoModelForSequenceClassification")
    async with load(folder, options) as backend:
        (model,) = backend._rewards
        nodes = await path_of(backend, 1)
        for node in nodes[1:]:
            (found,) = await backend.reward([node], model)
            score = logits(folder, [*node.prompt_tokens, *node.tokens])
            wanted = score[0] if count == 1 else torch.softmax(score, -1)[1]
            np.testing.assert_allclose(found.scores, [wanted.item()], atol=TOLERANCE)
            assert found.range == ((-np.inf, np.inf) if count == 1 else (0.0, 1.0))
        raw = await checked_scores(OutcomeReward(model), nodes[3:], Problem("p", PROMPT), backend)
        squashed = await checked_scores(
            OutcomeReward(model, probability=True), nodes[3:], Problem("p", PROMPT), backend
        )
        assert raw.values[-1] == found.scores[0]
        assert squashed.values[-1] == pytest.approx(1 / (1 + np.exp(-raw.values[-1])) if count == 1 else raw.values[-1])
        if count == 1:
            with pytest.raises(ScorerError, match="scorer=orm"):
                await ProcessReward(model).score(nodes[3:], Problem("p", PROMPT), backend)
        backend.release(nodes)


async def test_an_end_of_sequence_is_not_read_where_marks_are_and_an_answer_of_nothing_has_a_score() -> None:
    form, folder = FORMS["Qwen2.5-Math-PRM"], folder_of("Qwen2.5-Math-PRM")
    async with load(folder, form.options) as backend:
        (model,) = backend._rewards
        root = await backend.root({"prompt": PROMPT}, BranchKey.root(1))
        answer = await backend.append(root, backend.encode("12 + 7 = 19"), root.key.child(0))
        ended = await backend.append(answer, (0,), answer.key.child(0))
        (apart,) = await backend.reward([ended], model)
        (before,), (behind,) = [await backend.reward([node], model) for node in (answer, ended)]
        assert apart.scores == before.scores == behind.scores
        assert (apart.num_marks, before.num_marks, behind.num_tokens) == (1, 0, 0) or before.num_marks == 1
        nothing = await backend.append(root, (0,), root.key.child(1))
        blank = await backend.append(root, backend.encode("\n"), root.key.child(2))
        for node in (nothing, blank):
            (empty,) = await backend.reward([node], model)
            assert len(empty.scores) == 1
        on = await backend.append(blank, backend.encode("19"), blank.key.child(0))
        (found,) = await backend.reward([on], model)
        np.testing.assert_allclose(
            found.scores, expected(folder, form, root.prompt_tokens, ["\n", "19"]), atol=TOLERANCE
        )
        with pytest.raises(ScorerError, match="no step"):
            await backend.reward([root], model)
        backend.release([root, answer, ended, nothing, blank, on])


async def test_marks_are_charged_and_have_to_be_reserved_for() -> None:
    form, folder = FORMS["Qwen2.5-Math-PRM"], folder_of("Qwen2.5-Math-PRM")
    async with load(folder, form.options) as backend:
        (model,) = backend._rewards
        nodes = await path_of(backend, 1)
        problem = Problem("p", PROMPT)
        with pytest.raises(ScorerError, match="marks=1"):
            await checked_scores(ProcessReward(model), nodes[4:], problem, backend)
        nodes += await path_of(backend, 2)
        batch = await checked_scores(ProcessReward(model, marks=1, agg="min"), nodes[-1:], problem, backend)
        assert batch.num_tokens == len(nodes[0].prompt_tokens) + len(nodes[4].tokens) + 3
        backend.release(nodes)


def test_what_a_checkpoint_does_not_say_is_asked_for_by_name(tmp_path: Path) -> None:
    def load_as(folder: Path, **options: Any) -> None:
        load_engines([ModelToLoad(folder, RewardHead(**options))], EngineConfig(num_kv_blocks=4))

    two = classes("llama2", 2)(tmp_path / "two")
    with pytest.raises(ConfigError, match="where a step ends.*step_token"):
        load_as(two)
    with pytest.raises(ConfigError, match="LABEL_0, LABEL_1 means good.*good_label"):
        load_as(two, step_token="\n")
    with pytest.raises(ConfigError, match="good_label=2"):
        load_as(two, step_token="\n", good_label=2)
    named = json.loads((two / "config.json").read_text()) | {"id2label": {"0": "correct", "1": "incorrect"}}
    named["ramify"] = {"step_token": "\n"}
    (two / "config.json").write_text(json.dumps(named))
    core, _ = load_engine(two, EngineConfig(num_kv_blocks=4))
    assert core.model_config.reward == RewardHead("\n", good_label=0, kind="prm")
    plain = checkpoint("llama2")
    with pytest.raises(RequestError, match="no reward model.*good_token"):
        load_as(plain)
    with pytest.raises(ConfigError, match="bad_token"):
        LocalBackend.load(plain, {str(plain): {"step_token": "\n", "good_token": "1"}}, num_kv_blocks=4)
    with pytest.raises(ConfigError, match="'steps' is no option"):
        LocalBackend.load(plain, {str(plain): {"steps": "\n"}}, num_kv_blocks=4)


def test_a_model_of_labels_scores_and_does_not_write() -> None:
    core, _ = load_engine(outcome_folder("one label, llama"), EngineConfig(num_kv_blocks=8))
    with pytest.raises(RequestError, match="labels and no tokens"):
        core.add(EngineRequest((5, 6), SamplingParams(max_tokens=3), BranchKey.root(0)))
    with pytest.raises(RequestError, match="labels and no tokens"):
        core.add(EngineRequest((5, 6), SamplingParams(max_tokens=0, prompt_logprobs=0), BranchKey.root(0)))
    with pytest.raises(RequestError, match="score_token_ids has token id 1"):
        core.add(
            EngineRequest(
                (5, 6), SamplingParams(max_tokens=0), BranchKey.root(0), score_positions=(1,), score_token_ids=(1,)
            )
        )


async def test_a_mark_may_have_taken_the_place_of_a_special_token_that_does_not_occur(tmp_path: Path) -> None:
    folder = tmp_path / "prm"
    shutil.copytree(folder_of("Qwen2.5-Math-PRM"), folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_text((folder / file).read_text().replace(MARK, "<extra_0>"))
    async with (
        load(folder, {"step_token": "\n"}) as renamed,
        load(folder_of("Qwen2.5-Math-PRM"), {**LINES, "mark": MARK}) as same,
    ):
        found = []
        for backend in (renamed, same):
            (model,) = backend._rewards
            nodes = await path_of(backend, 1)
            found.append((await backend.reward(nodes[4:], model))[0].scores)
        assert found[0] == found[1]
        (model,) = renamed._rewards
        foreign = await path_of(renamed, 2, (PARTS[0], MARK))
        with pytest.raises(ScorerError, match="token 3 is '<extra_0>'"):
            await renamed.reward(foreign[2:], model)
    words = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (folder / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(RequestError, match="another vocabulary"):
        load(folder, {"step_token": "\n"})


async def test_a_policy_with_a_value_head_writes_as_it_would_without() -> None:
    folder = folder_of("value head, TRL")
    core, _ = load_engine(folder, EngineConfig(num_kv_blocks=8))
    assert core.model_config.head == "vocabulary"
