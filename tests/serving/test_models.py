"""Models of one server: loaded once for all who wait, unloaded for others when idle, replaced when they die."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ramify.config import EngineConfig
from ramify.engine.async_engine import AsyncEngine
from ramify.engine.loading import ModelToLoad, load_engines
from ramify.errors import CheckpointError, ConfigError, EngineDiedError
from ramify.models.reward_head import RewardHead
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from ramify.serving import model_loader as module
from ramify.serving.auth import Caller
from ramify.serving.config import ServerConfig
from ramify.serving.errors import ApiError
from ramify.serving.model_memory import MemoryPlan, count_weights, read_facts
from ramify.serving.models import Models

DRAW = SamplingParams(max_tokens=6, temperature=1.0, ignore_eos=True)
ANYBODY = Caller()
ENGINE = {"num_kv_blocks": 40, "max_num_seqs": 8}


class HereEngine(AsyncEngine):
    """An engine of this process that can be told to die."""

    died: asyncio.Future[EngineDiedError]
    folder: Path
    closed = False

    async def close(self) -> None:
        self.closed = True
        await super().close()


class Launcher:
    """Loads into this process; counts, and fails or waits when told so."""

    def __init__(self) -> None:
        self.started: list[HereEngine] = []
        self.names: list[str] = []
        self.faults: list[Exception] = []
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, model: str, config: EngineConfig, reward: RewardHead | None) -> HereEngine:
        self.names.append(Path(model).name)
        await self.go.wait()
        if self.faults:
            raise self.faults.pop(0)
        ((core, folder),) = load_engines([ModelToLoad(model, reward)], config)
        engine = HereEngine(core)
        engine.died, engine.folder = asyncio.get_running_loop().create_future(), folder
        self.started.append(engine)
        return engine


@asynccontextmanager
async def serving(config: ServerConfig, launcher: Launcher) -> AsyncIterator[Models]:
    models = Models(config, launcher)
    try:
        await models.start()
        yield models
    finally:
        await models.close()
        assert all(engine.closed for engine in launcher.started)


def room_for(*names: str) -> float:
    """GiB for so many of these models."""
    engine = EngineConfig.from_options(ENGINE)
    facts = [read_facts(name, engine) for name in names]
    return MemoryPlan(2**40, facts, engine).bytes_of(facts[0]) * len(facts) / 2**30


async def answer(models: Models, name: str) -> list[int]:
    async with models.use(name, ANYBODY) as model:
        outputs = [output async for output in model.llm.generate("Tom has", DRAW.with_(seed=1))]
        return outputs[-1].outputs[0].token_ids


async def test_a_backend_ends_its_own_branches_and_nobody_elses() -> None:
    async with serving(ServerConfig({"nano": "nano"}, engine=ENGINE), Launcher()) as models:
        async with models.use("nano", ANYBODY) as model:
            total = model.engine.stats().blocks_total
            async with models.backend("nano", ANYBODY, rewards=["nano-prm"], cache_salt="a") as backend:
                root = await backend.root("Tom has 3 apples.", BranchKey.root(0))
                nodes = [node async for node in backend.extend(root, DRAW, 3)]
                (score,) = await backend.reward(nodes[:1], "nano-prm")
                assert score.num_tokens > 0
                with pytest.raises(ApiError, match="in use"):
                    await models.unload("nano")
            assert model.engine.stats().blocks_free == total
        assert await answer(models, "nano")
        assert models.names() == ["nano"]
        with pytest.raises(ApiError, match="no model 'nano-prm'"):
            await answer(models, "nano-prm")


async def test_all_who_wait_for_a_model_wait_for_one_load() -> None:
    launcher = Launcher()
    config = ServerConfig({"a": "nano", "b": "nano-drafter"}, engine=ENGINE)
    async with serving(config, launcher) as models:
        await models.unload("b")
        assert models.states() == {"a": "ready", "b": "idle"}
        launcher.go.clear()
        waiting = [asyncio.create_task(answer(models, "b")) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # one leaves; the others still get it
        await asyncio.sleep(0.05)
        assert models.states()["b"] == "starting"
        launcher.go.set()
        answers = await asyncio.gather(*waiting[1:])
        assert len(set(map(tuple, answers))) == 1
        assert len(launcher.started) == 3
        assert set(models.stats()) == {"a", "b"}


async def test_idle_models_make_room_the_least_recently_used_first_and_used_ones_never() -> None:
    names = {"a": "nano", "b": "nano-drafter", "c": "nano"}
    config = ServerConfig(names, engine=ENGINE, model_memory_gib=room_for("nano", "nano"))
    launcher = Launcher()
    async with serving(config, launcher) as models:
        assert models.states() == {"a": "ready", "b": "ready", "c": "idle"}
        await answer(models, "b")
        await answer(models, "a")
        await answer(models, "c")
        assert models.states() == {"a": "ready", "b": "idle", "c": "ready"}
        async with models.use("c", ANYBODY), models.use("a", ANYBODY):
            with pytest.raises(ApiError) as refused:
                await answer(models, "b")
            assert refused.value.status == 503
            assert "retry-after" in refused.value.headers
            assert models.states() == {"a": "ready", "b": "idle", "c": "ready"}
        await answer(models, "b")
        assert models.states() == {"a": "idle", "b": "ready", "c": "ready"}
        held = sum(each["bytes"] for each in models.describe().values())
        assert held <= config.model_memory_gib * 2**30  # type: ignore[operator]


async def test_a_process_that_dies_is_replaced_and_one_that_dies_often_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.001)
    launcher = Launcher()
    async with serving(ServerConfig({"nano": "nano"}, engine=ENGINE), launcher) as models:
        expected = await answer(models, "nano")
        for death in range(module.MAX_DEATHS):
            engine = launcher.started[-1]
            engine.died.set_result(EngineDiedError("killed"))
            if death < module.MAX_DEATHS - 1:
                assert await answer(models, "nano") == expected
                assert engine.closed
        while models.states()["nano"] == "ready":
            await asyncio.sleep(0.01)
        assert models.states() == {"nano": "failed"}
        with pytest.raises(ApiError) as refused:
            await answer(models, "nano")
        assert refused.value.status == 503
        assert "killed" not in str(refused.value)
        assert "killed" in models.describe()["nano"]["error"]
        await models.load("nano")
        assert await answer(models, "nano") == expected


async def test_a_model_that_cannot_be_loaded_is_failed_until_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = Launcher()
    async with serving(ServerConfig({"nano": "nano"}, engine=ENGINE), launcher) as models:
        await models.unload("nano")
        launcher.faults = [CheckpointError("/secret/place is corrupt")]
        with pytest.raises(ApiError, match="cannot be used now") as refused:
            await answer(models, "nano")
        assert "secret" not in str(refused.value)
        with pytest.raises(ApiError, match="cannot be used now"):
            await answer(models, "nano")
        assert launcher.names == ["nano", "nano"]
        monkeypatch.setattr(module, "TRY_AGAIN_AFTER_S", 0.0)
        assert await answer(models, "nano")
    launcher.faults = [CheckpointError("a tensor is missing")]
    with pytest.raises(CheckpointError):
        async with serving(ServerConfig({"nano": "nano"}, engine=ENGINE), launcher):
            pass


def test_what_a_model_takes_is_known_before_it_is_loaded() -> None:
    engine = EngineConfig()
    nano, other = read_facts("nano", engine), read_facts("nano-drafter", engine)
    assert nano.weight_bytes == 4 * count_weights(nano.folder) == sum(p.numel() * 4 for p in weights(nano.folder))
    assert (nano.kind, read_facts("nano-prm", engine).kind) == ("generate", "reward")
    large = MemoryPlan(64 * 2**30, [nano, other], engine)
    assert large.num_blocks(nano) == nano.wish.useful_blocks
    for budget in (60 * 2**20, 40 * 2**20):
        plan = MemoryPlan(budget, [nano, other], engine)
        assert plan.bytes_of(nano) + plan.bytes_of(other) <= budget
        helper = read_facts("nano-prm", engine)
        assert plan.bytes_of(nano) + plan.bytes_of(other) + plan.bytes_of(helper) <= budget
    tight = MemoryPlan(nano.weight_bytes + 2**20, [nano, other], engine)  # they take turns
    assert tight.bytes_of(nano) <= tight.budget_bytes
    with pytest.raises(ConfigError, match="raise model_memory_gib"):
        MemoryPlan(nano.weight_bytes, [nano], engine).bytes_of(nano)
    with pytest.raises(ConfigError, match="raise model_memory_gib to"):
        MemoryPlan(nano.weight_bytes + 2**20, [nano], EngineConfig(num_kv_blocks=1000)).bytes_of(nano)


def weights(folder: Path) -> list[object]:
    from safetensors.torch import load_file

    return list(load_file(folder / "model.safetensors").values())


async def test_a_killed_engine_process_fails_what_ran_and_serves_again() -> None:
    models = Models(ServerConfig({"nano": "nano"}, engine={**ENGINE, "num_threads": 1}))
    try:
        async with asyncio.timeout(100):
            await models.start()
            expected = await answer(models, "nano")
            pid = models.describe()["nano"]["pid"]
            failed = asyncio.create_task(endless(models))
            while models.stats()["nano"].generation_tokens < 20:
                await asyncio.sleep(0.01)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(EngineDiedError, match="SIGKILL"):
                await failed
            assert await answer(models, "nano") == expected
            assert models.describe()["nano"]["pid"] != pid
    finally:
        await models.close()


async def endless(models: Models) -> None:
    async with models.use("nano", ANYBODY) as model:
        async for _ in model.llm.generate("Tom", DRAW.with_(max_tokens=400)):
            pass
