"""Branches share memory: many branches of a long prompt peak near one prompt plus their own tails."""

from ramify.backends.base import StepEnd
from ramify.backends.local import LocalBackend
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from tests.engine.harness import checkpoint

PROMPT, BRANCHES, TAIL, BLOCK = 512, 64, 24, 16
DRAW = SamplingParams(max_tokens=None, temperature=1.0, ignore_eos=True)


class Peak:
    """Follows how many blocks are held after each step."""

    def __init__(self, backend: LocalBackend) -> None:
        self.blocks = 0
        self._core = backend.engine.core
        self._step = self._core.step
        self._core.step = self._watched  # type: ignore[method-assign]

    def _watched(self):
        output = self._step()
        self.blocks = max(self.blocks, output.blocks_used)
        return output


def load() -> LocalBackend:
    return LocalBackend.load(
        checkpoint("llama2", max_position_embeddings=640), num_kv_blocks=700, max_num_seqs=BRANCHES, max_model_len=600
    )


def prompt_ids() -> tuple[int, ...]:
    return tuple(5 + index % 90 for index in range(PROMPT))


async def test_64_branches_of_a_512_token_prompt_peak_near_one_prompt_and_64_tails() -> None:
    async with load() as backend:
        peak = Peak(backend)
        root = await backend.root(prompt_ids(), BranchKey.root(0))
        params = DRAW.with_(max_tokens=TAIL)
        nodes = [node async for node in backend.extend(root, params, BRANCHES)]
        tails = BRANCHES * -(-TAIL // BLOCK)
        assert len({node.tokens for node in nodes}) == BRANCHES
        assert PROMPT // BLOCK <= peak.blocks <= PROMPT // BLOCK + tails
        assert backend.usage.prompt_cached == PROMPT * (BRANCHES - 1)


async def test_so_do_branches_that_fork_again_step_by_step_and_dropping_gives_back_at_once() -> None:
    async with load() as backend:
        peak = Peak(backend)
        core = backend.engine.core
        root = await backend.root(prompt_ids(), BranchKey.root(0))
        step = StepEnd(max_tokens=8)
        level = [node async for node in backend.extend(root, DRAW, 4, step_end=step)]
        for _ in range(2):
            grown = [child for node in level async for child in backend.extend(node, DRAW, 4, step_end=step)]
            backend.release(level)
            level = grown
        assert len(level) == BRANCHES
        own = BRANCHES * (-(-TAIL // BLOCK) + 1)  # a fork may copy the partial block it starts in
        assert peak.blocks <= PROMPT // BLOCK + own
        held = core.num_free_blocks
        backend.release(level[1:])
        assert core.num_free_blocks > held
        assert core.scheduler.pool.num_usable - core.num_free_blocks <= (PROMPT + TAIL) // BLOCK + 2
        backend.release([level[0], root])
        assert core.num_free_blocks == core.scheduler.pool.num_usable
