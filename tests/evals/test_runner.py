"""An evaluation is a function of task, model, seed and spec; it goes on where it stopped and hides no failure."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ramify.backends.toy import ToyBackend
from ramify.errors import CapabilityError, ConfigError, TaskError
from ramify.evals.jsonl import read_journal
from ramify.evals.pools import draw_pool
from ramify.evals.replay import best_of_n, majority
from ramify.evals.runner import Evaluation, evaluate, name_of
from ramify.strategies import DEFAULT_SAMPLING, parse_strategy
from tests.evals.toy_task import PROBLEMS, ToyTask, make_backend

SPECS = [
    "sample:temperature=0",
    "self-consistency:n=4",
    "best-of-n:n=4,model=toy-prm",
    "beam:n=4,m=2,model=toy-prm",
    "particle-filter:n=4,model=toy-prm",
]


async def run(path: Path, specs: list[str] = SPECS, backend: ToyBackend | None = None, **options: Any) -> Evaluation:
    strategies = [parse_strategy(spec) for spec in specs]
    return await evaluate(
        strategies, options.pop("task", ToyTask()), PROBLEMS, backend or make_backend(),
        path=path, model="toy", **options,
    )  # fmt: skip


def without_time(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The records without what time and the state of the prefix cache decide."""
    return [{**r, "ledger": {**r["ledger"], "wall_s": 0, "prompt_cached": 0}} for r in evaluation.records]


async def test_every_strategy_gets_a_row_whose_tokens_are_those_the_backend_ran(tmp_path: Path) -> None:
    backend = make_backend()
    found = await run(tmp_path / "run.jsonl", backend=backend)
    assert [row.strategy.partition(":")[0] for row in found.rows] == [spec.partition(":")[0] for spec in SPECS]
    assert all(row.problems == len(PROBLEMS) for row in found.rows)
    assert not found.failures
    total = sum(row.tokens * row.problems for row in found.rows)
    assert total == pytest.approx(backend.usage.generated + backend.usage.verifier)


async def test_the_numbers_do_not_depend_on_batch_size_or_concurrency(tmp_path: Path) -> None:
    first = await run(tmp_path / "a.jsonl")
    second = await run(tmp_path / "b.jsonl", backend=make_backend(batch_size=2), concurrency=1)
    assert without_time(first) == without_time(second)
    other = await run(tmp_path / "c.jsonl", seed=1)
    assert without_time(first) != without_time(other)


@pytest.mark.parametrize("share", [0.05, 0.4, 0.8])
async def test_a_killed_run_goes_on_and_gives_the_same_numbers(tmp_path: Path, share: float) -> None:
    whole = await run(tmp_path / "whole.jsonl")
    data = (tmp_path / "whole.jsonl").read_bytes()
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(data[: int(len(data) * share)])
    backend = make_backend()
    resumed = await run(cut, backend=backend)
    assert without_time(resumed) == without_time(whole)
    again = make_backend()
    await run(cut, backend=again)
    assert again.usage.calls == 0
    assert backend.usage.calls > 0


async def test_a_strategy_can_be_added_to_a_file_later(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    await run(path, SPECS[:1])
    both = await run(path, SPECS[:2])
    assert len(both.rows) == 2
    assert len(read_journal(path)[1]) == 2 * len(PROBLEMS)


async def test_a_budget_caps_every_problem_and_is_a_row_of_its_own(tmp_path: Path) -> None:
    found = await run(tmp_path / "run.jsonl", SPECS[1:2], budgets=["", "5"])
    free, capped = found.rows
    assert (free.budget, capped.budget) == ("", "5")
    assert capped.tokens <= 5 < free.tokens
    assert all(r["ledger"]["total_tokens"] <= 5 for r in found.records if r["budget"] == "5")


async def test_a_failed_problem_is_reported_left_out_and_tried_again(tmp_path: Path) -> None:
    class Failing(ToyTask):
        def correct(self, text: str, problem: object) -> bool:
            if problem is PROBLEMS[2]:
                raise TaskError("no reference")
            return super().correct(text, PROBLEMS[0])

    path = tmp_path / "run.jsonl"
    with pytest.raises(TaskError, match="no reference"):
        await run(path, SPECS[:1], task=Failing())
    assert len(read_journal(path)[1]) >= 1
    assert len((await run(path, SPECS[:1])).records) == len(PROBLEMS)

    class Broken(ToyBackend):
        async def root(self, prompt: Any, *arguments: Any, **options: Any) -> Any:
            if prompt == PROBLEMS[1].prompt:
                raise TaskError("unreadable prompt")
            return await super().root(prompt, *arguments, **options)

    found = await run(tmp_path / "broken.jsonl", SPECS[:1], backend=Broken(make_backend().model))
    assert [failure.problem for failure in found.failures] == [PROBLEMS[1].id]
    assert found.rows[0].problems == len(PROBLEMS) - 1


async def test_progress_counts_up_to_the_whole(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    await run(tmp_path / "run.jsonl", SPECS[:2], progress=lambda spec, done, total: seen.append((done, total)))
    assert seen == [(i + 1, 2 * len(PROBLEMS)) for i in range(2 * len(PROBLEMS))]


async def test_what_cannot_work_is_refused_before_the_first_token(tmp_path: Path) -> None:
    class Plain(ToyBackend):
        capabilities = ToyBackend.capabilities - {"reward"}

    backend = Plain(make_backend().model)
    with pytest.raises(CapabilityError, match="best-of-n"):
        await run(tmp_path / "run.jsonl", [SPECS[0], SPECS[2]], backend=backend)
    assert backend.usage.calls == 0
    with pytest.raises(ConfigError, match="there twice"):
        await run(tmp_path / "run.jsonl", [SPECS[0], SPECS[0]])
    with pytest.raises(ConfigError, match="not understood"):
        await run(tmp_path / "run.jsonl", budgets=["lots"])


async def test_a_pool_replayed_in_full_chooses_what_the_strategies_choose(tmp_path: Path) -> None:
    found = await run(tmp_path / "run.jsonl", [SPECS[1], SPECS[2]])
    pool = await draw_pool(
        tmp_path / "pool.jsonl", ToyTask(), PROBLEMS, make_backend(),
        model="toy", n=4, params=DEFAULT_SAMPLING, reward_models=["toy-prm"],
    )  # fmt: skip
    chosen = {(r["strategy"].partition(":")[0], r["problem"]): r["text"] for r in found.records}
    for problem, samples in pool.samples.items():
        scored = best_of_n("toy-prm")(samples)
        assert scored is not None
        assert chosen["best-of-n", problem] == scored.text
        voted = majority(samples)
        assert chosen["self-consistency", problem] == (voted.text if voted else samples[0].text)


async def test_records_are_plain_json_without_nan(tmp_path: Path) -> None:
    await run(tmp_path / "run.jsonl", SPECS[:2])
    for line in (tmp_path / "run.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert not any(isinstance(value, float) and math.isnan(value) for value in record.values())


def test_a_strategys_name_always_shows_its_size_and_reads_back_as_the_same_strategy() -> None:
    for spec in ("best-of-n:n=16", "best-of-n:agg=min,n=4", "beam:n=16,m=2", "sample:temperature=0", "particle-filter"):
        made = parse_strategy(spec)
        assert parse_strategy(name_of(made)) == made
        assert not hasattr(made, "n") or f"n={made.n}" in name_of(made)
