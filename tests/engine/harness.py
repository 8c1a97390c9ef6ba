"""Small engines for tests, and helpers that run requests to their end and check the pool."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch

from ramify.config import EngineConfig
from ramify.engine.core import EngineCore
from ramify.engine.loading import load_engine
from ramify.engine.request import EngineRequest, StepOutput, TokenLogprobs
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from tests.checkpoints import VOCAB_SIZE, make_checkpoint


@cache
def checkpoint(family: str, **overrides: object) -> Path:
    """A random checkpoint of a family, made once."""
    return make_checkpoint(Path(mkdtemp(prefix="ramify-test-")) / family, family, **overrides)


def engine(family: str = "llama2", **options: object) -> EngineCore:
    """An engine with a small pool over a random model."""
    settings = {"num_kv_blocks": 64, "max_num_seqs": 16, "max_num_batched_tokens": 64, **options}
    core, _ = load_engine(checkpoint(family), EngineConfig(**settings))  # type: ignore[arg-type]
    return core


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    """Random token ids (never the end-of-sequence id 0)."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(4, VOCAB_SIZE, (length,), generator=generator).tolist())


def request(ids: tuple[int, ...], seed: int = 0, keep: bool = False, salt: str = "", **params: object) -> EngineRequest:
    """A request that draws under `seed`; ends at max_tokens unless told otherwise."""
    settings = {"max_tokens": 8, "ignore_eos": True, "logprobs": 0, **params}
    return EngineRequest(
        ids,
        SamplingParams(**settings),  # type: ignore[arg-type]
        BranchKey.root(seed),
        keep=keep,
        cache_salt=salt,
    )


@dataclass
class Finished:
    """All that came out of one sequence."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    reason: str | None = None
    error: Exception | None = None
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    scores: object = None
    cached: int = 0

    def trace(self) -> tuple[tuple[int, float], ...]:
        """Tokens with their exact log-probabilities: equal only if the logits are equal bit for bit."""
        return tuple((token, entry.logprob) for token, entry in zip(self.tokens, self.logprobs, strict=True))


def collect(results: dict[int, Finished], step: StepOutput) -> None:
    """Add a step's outputs to the results."""
    for output in step.outputs:
        finished = results.setdefault(output.sequence_id, Finished())
        finished.tokens += output.new_token_ids
        finished.logprobs += output.new_logprobs
        finished.reason = output.finish_reason or finished.reason
        finished.error = output.error or finished.error
        finished.prompt_logprobs = output.prompt_logprobs or finished.prompt_logprobs
        finished.scores = output.scores if output.scores is not None else finished.scores
        finished.cached = max(finished.cached, output.num_cached_tokens)


def run(core: EngineCore, *requests: EngineRequest) -> list[Finished]:
    """Run requests together to their end; results in the order of their sequences."""
    ids = [i for each in requests for i in core.add(each)]
    results: dict[int, Finished] = {}
    finish(core, results)
    return [results[i] for i in ids]


def finish(core: EngineCore, results: dict[int, Finished]) -> None:
    """Step until nothing is left to do."""
    for _ in range(10_000):
        if not core.has_work():
            return
        collect(results, core.step())
        check_pool(core)
    raise AssertionError("the engine does not come to an end")


def check_pool(core: EngineCore) -> None:
    """Every block is referenced by exactly the tables that hold it."""
    core.scheduler.pool.check(core.scheduler.tables())


def assert_whole(core: EngineCore) -> None:
    """No sequence is left and every block is free."""
    assert not core._sequences
    check_pool(core)
    assert core.num_free_blocks == core.scheduler.pool.num_usable
