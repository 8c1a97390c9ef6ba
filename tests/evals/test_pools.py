"""A pool is drawn once, goes on where a kill stopped it, and depends on nothing but its settings."""

import json
from pathlib import Path

import pytest

from ramify.backends.toy import ToyBackend
from ramify.errors import CapabilityError, ConfigError, TaskError
from ramify.evals.pools import Pool, draw_pool
from ramify.sampling import SamplingParams
from tests.evals.toy_task import PROBLEMS, ToyTask, make_backend

PARAMS = SamplingParams(temperature=1.0, max_tokens=8)


async def draw(path: Path, n: int = 4, seed: int = 0, count: int = 6, backend: ToyBackend | None = None) -> Pool:
    return await draw_pool(
        path, ToyTask(), PROBLEMS[:count], backend or make_backend(),
        model="toy", n=n, params=PARAMS, seed=seed, reward_models=["toy-prm"],
    )  # fmt: skip


async def test_a_pool_holds_every_sample_with_its_scores_and_counts(tmp_path: Path) -> None:
    backend = make_backend()
    pool = await draw(tmp_path / "pool.jsonl", backend=backend)
    assert pool.n == 4
    assert pool.reward_models == ("toy-prm",)
    assert list(pool.samples) == [problem.id for problem in PROBLEMS]
    samples = [sample for group in pool.samples.values() for sample in group]
    assert sum(sample.generated for sample in samples) == backend.usage.generated
    prompts = sum(group[0].prompt_tokens for group in pool.samples.values())
    assert sum(sample.verifier["toy-prm"] for sample in samples) + prompts == backend.usage.verifier
    for sample in samples:
        assert sample.correct == sample.text.startswith("a")
        assert sample.logprob is not None
        assert sample.logprob <= 0
        assert len(sample.steps["toy-prm"]) >= 1
    assert not backend.live


async def test_the_pool_is_the_same_at_any_batch_size_and_concurrency(tmp_path: Path) -> None:
    first = await draw(tmp_path / "a.jsonl")
    second = await draw_pool(
        tmp_path / "b.jsonl", ToyTask(), PROBLEMS, make_backend(batch_size=2),
        model="toy", n=4, params=PARAMS, reward_models=["toy-prm"], concurrency=1,
    )  # fmt: skip
    assert first == second
    assert first != await draw(tmp_path / "c.jsonl", seed=1)


async def test_more_samples_and_more_problems_add_to_the_file_without_drawing_anything_again(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    await draw(path, n=2, count=3)
    backend = make_backend()
    grown = await draw(path, backend=backend)
    assert grown == await draw(tmp_path / "at_once.jsonl")
    drawn_before = sum(s.generated for problem in PROBLEMS[:3] for s in grown.samples[problem.id][:2])
    assert backend.usage.generated == sum(s.generated for g in grown.samples.values() for s in g) - drawn_before
    assert (await draw(path, n=2, count=3)).samples == {p.id: grown.samples[p.id][:2] for p in PROBLEMS[:3]}


@pytest.mark.parametrize("share", [0.1, 0.35, 0.5, 0.77, 0.99])
async def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, share: float) -> None:
    whole = await draw(tmp_path / "whole.jsonl")
    data = (tmp_path / "whole.jsonl").read_bytes()
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(data[: int(len(data) * share)])
    assert await draw(cut) == whole
    assert Pool.load(cut).n == 4


async def test_a_failure_keeps_what_was_written_and_is_raised_as_itself(tmp_path: Path) -> None:
    class Failing(ToyTask):
        def correct(self, text: str, problem: object) -> bool:
            if problem is PROBLEMS[-1]:
                raise TaskError("no reference")
            return True

    path = tmp_path / "pool.jsonl"
    with pytest.raises(TaskError, match="no reference"):
        await draw_pool(
            path, Failing(), PROBLEMS, make_backend(), model="toy", n=2, params=PARAMS, concurrency=1
        )  # fmt: skip
    assert len(Pool.load(path).samples) == 5


async def test_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    await draw(path)
    with pytest.raises(ConfigError, match="seed was 0 and is now 1"):
        await draw(path, seed=1)
    with pytest.raises(ConfigError, match="sampling was .*'max_tokens': 8.* and is now"):
        await draw_pool(
            path, ToyTask(), PROBLEMS, make_backend(), model="toy", n=4, params=PARAMS.with_(max_tokens=3),
            reward_models=["toy-prm"],
        )  # fmt: skip


async def test_what_cannot_work_is_refused_before_the_first_token(tmp_path: Path) -> None:
    class NoRewards(ToyBackend):
        capabilities = ToyBackend.capabilities - {"reward"}

    backend = NoRewards(make_backend().model)
    with pytest.raises(CapabilityError, match="reward"):
        await draw(tmp_path / "pool.jsonl", backend=backend)
    with pytest.raises(ConfigError, match="n=0"):
        await draw(tmp_path / "pool.jsonl", n=0)
    with pytest.raises(ConfigError, match="same id"):
        await draw_pool(
            tmp_path / "pool.jsonl", ToyTask(), [PROBLEMS[0]] * 2, make_backend(), model="toy", n=1, params=PARAMS
        )  # fmt: skip
    assert backend.usage.generated == 0
    assert not (tmp_path / "pool.jsonl").exists()


async def test_a_pool_holds_what_confidence_is_read_from(tmp_path: Path) -> None:
    pool = await draw(tmp_path / "pool.jsonl")
    assert pool.details == 20
    for sample in (sample for group in pool.samples.values() for sample in group):
        assert sample.logprob_sum == pytest.approx(sample.logprob * sample.generated)
        assert len(sample.confidences) == sample.generated
        assert sample.self_certainty is not None
        assert sample.self_certainty > 0
    assert Pool.load(tmp_path / "pool.jsonl") == pool


async def test_details_never_change_what_is_drawn(tmp_path: Path) -> None:
    rich = await draw(tmp_path / "rich.jsonl")
    poor = await draw_pool(
        tmp_path / "poor.jsonl", ToyTask(), PROBLEMS, make_backend(),
        model="toy", n=4, params=PARAMS, reward_models=["toy-prm"], details=0,
    )  # fmt: skip
    assert poor.details == 0
    for first, second in zip(rich.samples.values(), poor.samples.values(), strict=True):
        assert [s.tokens for s in first] == [s.tokens for s in second]
        assert {s.self_certainty for s in second} == {None}


async def test_a_file_of_earlier_versions_loads_and_goes_on_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    await draw_pool(
        path, ToyTask(), PROBLEMS, make_backend(),
        model="toy", n=2, params=PARAMS, reward_models=["toy-prm"], details=0,
    )  # fmt: skip
    newer = {"logprob_sum", "self_certainty", "confidences"}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    bare = [lines[0], *({name: part for name, part in line.items() if name not in newer} for line in lines[1:])]
    path.write_text("".join(json.dumps(line) + "\n" for line in bare))
    old = Pool.load(path)
    assert old.n == 2
    assert old.samples["toy/0"][0].confidences == ()
    grown = await draw(path)  # more samples, as the file's own settings have them
    assert grown.n == 4
    assert grown.details == 0


async def test_a_record_that_is_no_sample_is_reported_by_line(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    await draw(path, n=1, count=1)
    with open(path, "a") as file:
        file.write(json.dumps({"problem": "x"}) + "\n")
    with pytest.raises(TaskError, match=r"line 3: no sample"):
        Pool.load(path)
    with pytest.raises(TaskError, match="there is no file"):
        Pool.load(tmp_path / "none.jsonl")
