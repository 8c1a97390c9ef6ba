"""`LLM`: the offline engine with the inference-time methods on top. This is the class that users import."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from ramify.engine.llm import OfflineLLM

if TYPE_CHECKING:
    from ramify.scoring.equivalence import Equivalence
    from ramify.scoring.problem import Problem
    from ramify.strategies.kernel.budget import Budget
    from ramify.strategies.kernel.result import Result
    from ramify.strategies.registry import Strategy


class LLM(OfflineLLM):
    """A model in this process.

    Example:
        >>> with LLM("nano") as llm:
        ...     result = llm.solve("Tom has 3 apples and buys 4 more. How many?", "best-of-n:n=8")

    Args:
        model: a bundled name ("nano", "nano-drafter", "nano-prm"), a checkpoint's folder, or a hub id.
        engine_options: fields of `EngineConfig`, e.g. ``dtype``, ``max_model_len``, ``max_num_seqs``, ``seed``.
    """

    @overload
    def solve(
        self,
        problems: str | Problem,
        strategy: str | Strategy = ...,
        *,
        budget: int | Budget | None = ...,
        reward_models: Sequence[str] | None = ...,
        models: Sequence[str] | None = ...,
        seed: int | None = ...,
        equivalence: Equivalence | None = ...,
    ) -> Result: ...

    @overload
    def solve(
        self,
        problems: list[str] | Sequence[Problem],
        strategy: str | Strategy = ...,
        *,
        budget: int | Budget | None = ...,
        reward_models: Sequence[str] | None = ...,
        models: Sequence[str] | None = ...,
        seed: int | None = ...,
        equivalence: Equivalence | None = ...,
    ) -> list[Result]: ...

    def solve(
        self,
        problems: str | Problem | list[str] | Sequence[Problem],
        strategy: str | Strategy = "best-of-n:n=16",
        *,
        budget: int | Budget | None = None,
        reward_models: Sequence[str] | None = None,
        models: Sequence[str] | None = None,
        seed: int | None = None,
        equivalence: Equivalence | None = None,
    ) -> Result | list[Result]:
        """Answer questions with an inference-time method; all problems share the engine's batch.

        Args:
            problems: one question or several, as text or `Problem`.
            strategy: a specification such as ``"beam:n=16,width=4"`` (see `ramify techniques`), or a strategy object.
            budget: the hard cap of each problem: a number of tokens (generated, verifier and probe tokens together), or
                a `Budget` with seconds or a cost.
            reward_models: loaded besides the model for scorers; by default those that the strategy's scorers name.
            models: loaded besides the model for methods that call several; by default those that the strategy names.
            seed: decides every draw; the engine's by default.
            equivalence: what makes two answers the same; marked answers and numbers by default.

        Returns:
            A `Result` a problem: best answer, candidates, ledger, trace.

        Raises:
            CapabilityError: the strategy needs what this model does not offer.
        """
        from ramify.scoring.problem import Problem
        from ramify.strategies import needed_models
        from ramify.strategies.kernel.budget import Budget
        from ramify.strategies.registry import parse_strategy

        method = parse_strategy(strategy) if isinstance(strategy, str) else strategy
        single = isinstance(problems, str | Problem)
        several: Sequence[str | Problem] = [problems] if isinstance(problems, str | Problem) else problems
        asked = [
            each if isinstance(each, Problem) else Problem(id=str(place), prompt=each)
            for place, each in enumerate(several, start=1)
        ]
        rewards = needed_models.reward_models(method) if reward_models is None else tuple(reward_models)
        others = needed_models.other_models(method) if models is None else tuple(models)
        cap = Budget(tokens=budget) if isinstance(budget, int) else budget
        chosen_seed = self.config.seed if seed is None else seed
        results = asyncio.run(self._solve(method, asked, cap, rewards, others, chosen_seed, equivalence))
        return results[0] if single else results

    async def _solve(
        self,
        method: Strategy,
        problems: Sequence[Problem],
        budget: Budget | None,
        reward_models: tuple[str, ...],
        models: tuple[str, ...],
        seed: int,
        equivalence: Equivalence | None,
    ) -> list[Result]:
        from ramify.backends.local import LocalBackend
        from ramify.engine.loading import ModelToLoad, load_engines
        from ramify.models.reward_head import RewardHead
        from ramify.strategies.kernel.runtime import solve_many
        from ramify.text.tokenizer import load_tokenizer

        wanted = [*(ModelToLoad(name, RewardHead()) for name in reward_models), *map(ModelToLoad, models)]
        engines = load_engines(wanted, self.config) if wanted else []
        loaded = [(core, load_tokenizer(folder)) for core, folder in engines]
        rewards = dict(zip(reward_models, loaded, strict=False))
        others = dict(zip(models, loaded[len(reward_models) :], strict=True))
        async with LocalBackend.on_cores((self.core, self.tokenizer), rewards, others) as backend:
            results = await solve_many(method, problems, backend, budget=budget, seed=seed, equivalence=equivalence)
        return [result for result in results if result is not None]
