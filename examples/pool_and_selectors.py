"""Draw and score a pool once; then ask offline what each way of choosing among k samples would have given."""

import asyncio
import tempfile
from pathlib import Path

from rich.console import Console

from ramify.backends.local import LocalBackend
from ramify.evals.pools import Pool, Sample, draw_pool
from ramify.evals.replay import accuracy_at_k, replay, with_selector
from ramify.evals.report import replay_table
from ramify.evals.tasks import get_task
from ramify.strategies import DEFAULT_SAMPLING


def shortest(samples: list[Sample]) -> Sample:
    """A selector of one's own: the answer with the fewest tokens."""
    return min(samples, key=lambda sample: sample.generated)


async def draw(path: Path) -> Pool:
    task = get_task("word_problems")
    async with LocalBackend.load("nano", reward_models=("nano-prm",)) as backend:
        return await draw_pool(
            path, task, task.problems(16), backend,
            model="nano", n=8, params=DEFAULT_SAMPLING, reward_models=["nano-prm"],
        )  # fmt: skip


with tempfile.TemporaryDirectory() as folder:
    pool = asyncio.run(draw(Path(folder) / "pool.jsonl"))
    Console().print(replay_table(replay(pool, [1, 2, 4, 8])))
    print("shortest of 4:", accuracy_at_k(pool, with_selector(shortest), 4))
