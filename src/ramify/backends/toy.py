"""The enumerable model: a few tokens, a few positions, a given table; a method's law can be checked on it exactly.

It offers every capability, counts what it runs to the token, and can be told how slowly each branch runs, so that
results can be shown to depend neither on the order of completion nor on the size of the batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import fields

import numpy as np

from ramify.backends.base import Capability, FloatArray, Node, StepEnd, StepScores, TokenDetail, Usage, kept
from ramify.backends.toy_model import ToyModel
from ramify.errors import CapabilityError, EngineError, PromptTooLongError, RequestError
from ramify.randomness import BranchKey, key_arrays, uniform
from ramify.sampling import Prompt, SamplingParams, TokenIds

__all__ = ["ToyBackend", "ToyModel"]

RewardTable = Callable[[TokenIds], float]
"""A process reward: the tokens so far to a number (in [0, 1] unless a fault is being tested)."""

_UNDERSTOOD = {"temperature", "max_tokens", "stop", "stop_strings", "stop_token_ids", "logprobs"}
_UNDERSTOOD |= {"include_stop_str_in_output", "seed", "skip_special_tokens", "detokenize"}
_UNDERSTOOD |= {"top_p", "top_k", "allowed_token_ids"}
_USUAL = {field.name: getattr(SamplingParams(), field.name) for field in fields(SamplingParams)}
_LEAST_LOGPROB = -100.0
"""What an impossible token counts in a mean over the vocabulary, which would be infinite otherwise."""


class ToyBackend:
    """A `Backend` over a `ToyModel`.

    Args:
        model: the law.
        rewards: reward models by name.
        pace: how many turns of the event loop a branch waits before each of its tokens; None means one.
        batch_size: how many branches may run at once; None means any number.
        max_model_len: tokens of prompt and answer together.
        models: other models by name, with the same tokens.
        memory: tokens of prompts and answers that living branches may hold, what they share counted once; None means
            any number. It is only told (`free_tokens`), not enforced.
    """

    capabilities = frozenset(Capability)

    def __init__(
        self,
        model: ToyModel,
        rewards: Mapping[str, RewardTable] | None = None,
        pace: Callable[[BranchKey], int] | None = None,
        batch_size: int | None = None,
        max_model_len: int = 64,
        memory: int | None = None,
        models: Mapping[str, ToyModel] | None = None,
    ) -> None:
        self.model = model
        self.models: dict[str | None, ToyModel] = {None: model}
        self.models.update((models or {}).items())
        self.rewards = dict(rewards or {})
        self.pace = pace
        self.max_model_len = max_model_len
        self.memory = memory
        self.usage = Usage()
        self.live: set[BranchKey] = set()
        """Branches that hold memory: made and not released yet."""
        self.released: list[BranchKey] = []
        self.cancelled = 0
        """Continuations stopped before they were done."""
        self._slots = asyncio.Semaphore(batch_size) if batch_size else None
        self._prefilled: set[BranchKey] = set()
        self._read: dict[BranchKey, set[tuple[str, BranchKey]]] = {}
        self._running: dict[BranchKey, set[asyncio.Task[Node]]] = {}
        self._held: dict[BranchKey, Node] = {}
        spoken = [token for token, text in enumerate(model.texts) if text]
        self._longest_first = sorted(spoken, key=lambda token: -len(model.texts[token]))

    async def root(self, prompt: Prompt, key: BranchKey, usage: Usage | None = None, model: str | None = None) -> Node:
        """The root over a prompt. The table does not depend on the prompt; its tokens only count."""
        self.context_length(model)
        tokens = _prompt_tokens(prompt)
        if len(tokens) >= self.max_model_len:
            raise PromptTooLongError(
                f"prompt has {len(tokens)} tokens; the model's context is {self.max_model_len}: shorten it"
            )
        return self._hold(Node(key, prompt_tokens=tokens, model=model, usage=usage if usage is not None else Usage()))

    def context_length(self, model: str | None = None) -> int:
        """The same for every model. Raises `RequestError` for one that is not here."""
        if model not in self.models:
            known = ", ".join(name for name in self.models if name) or "none"
            raise RequestError(f"there is no model {model!r} here (there are: {known})")
        return self.max_model_len

    async def extend(
        self, node: Node, params: SamplingParams, n: int = 1, first_child: int = 0, step_end: StepEnd | None = None
    ) -> AsyncGenerator[Node, None]:
        """Draw `n` continuations, each yielded when it is done."""
        self._check(node, params)
        self._count_prompt(node, n)
        done: asyncio.Queue[asyncio.Task[Node]] = asyncio.Queue()
        below = self._running.setdefault(node.key, set())
        tasks = []
        for index in range(first_child, first_child + n):
            task = asyncio.create_task(self._continue(node, node.key.child(index), params, step_end))
            task.add_done_callback(done.put_nowait)
            tasks.append(task)
        below.update(tasks)
        try:
            for _ in range(n):
                finished = await done.get()
                below.discard(finished)
                tasks.remove(finished)
                if finished.cancelled():
                    raise EngineError("the branch was released while it ran")
                yield finished.result()
        finally:
            for task in tasks:
                task.cancel()
            undelivered = await asyncio.gather(*tasks, return_exceptions=True)
            for lost in undelivered:
                if isinstance(lost, Node):
                    self._let_go(lost.key)
            below.difference_update(tasks)

    async def append(self, node: Node, tokens: TokenIds, key: BranchKey, keep: int | None = None) -> Node:
        """An open node with known tokens behind `node`, or behind its first `keep` tokens."""
        parent, left = kept(node, keep)
        ids = (*parent.tokens, *left, *tokens)
        if len(ids) == len(parent.tokens):
            raise RequestError("nothing to append: give at least one token")
        if len(node.prompt_tokens) + len(ids) >= self.max_model_len:
            raise PromptTooLongError(
                f"prompt, answer and appended tokens are {len(node.prompt_tokens) + len(ids)} and the context is "
                f"{self.max_model_len}: append fewer, or keep less of the answer"
            )
        await asyncio.sleep(0)
        self._count(node, calls=1, prompt=len(left) + len(tokens))
        text = parent.text + self.model.text(ids[len(parent.tokens) :])
        child = Node(
            key, parent, ids, text, node.prompt_tokens,
            model=node.model, num_new_tokens=len(left), usage=node.usage,
        )  # fmt: skip
        return self._hold(child)

    def free_tokens(self) -> int | None:
        """What is left of `memory`."""
        if self.memory is None:
            return None
        paths = {(id(node.prompt_tokens), node.tokens[:end]) for node in self._held.values() for end in _ends(node)}
        prompts = {id(node.prompt_tokens): len(node.prompt_tokens) for node in self._held.values()}
        return max(0, self.memory - len(paths) - sum(prompts.values()))

    async def logprobs(self, node: Node, continuations: Sequence[TokenIds]) -> list[FloatArray]:
        """Log-probabilities of continuations, straight from the table (minus infinity for what cannot be drawn)."""
        self._count(node, calls=1, probe=sum(map(len, continuations)))
        return [
            np.array([self._logprob(node.model, (*node.tokens, *tokens[:at]), tokens[at]) for at in range(len(tokens))])
            for tokens in continuations
        ]

    async def reward(self, nodes: Sequence[Node], model: str) -> list[StepScores]:
        """The reward table's value at each step's end so far; what a model has read of a tree it reads on from."""
        if model not in self.rewards:
            raise RequestError(f"no reward model {model!r} here; there are: {', '.join(self.rewards) or 'none'}")
        await asyncio.sleep(0)
        scores = []
        for node in nodes:
            unread = self._newly_read(node, model)
            self._count(node, calls=1, verifier=unread)
            scores.append(StepScores(self._step_scores(node, self.rewards[model]), unread))
        return scores

    def release(self, nodes: Iterable[Node]) -> None:
        """Forget nodes and stop what runs below them."""
        for node in nodes:
            self._let_go(node.key)
            self.released.append(node.key)
            if node.parent is None:
                self._read.pop(node.key, None)  # the tree is done: another one under the same key is read anew
            for task in self._running.get(node.key, ()):
                task.cancel()

    def encode(self, text: str, model: str | None = None) -> TokenIds:
        """Tokens of a text, the longest match first. Raises `RequestError` for a text that has none."""
        tokens: list[int] = []
        while text:
            match = next((token for token in self._longest_first if text.startswith(self.model.texts[token])), None)
            if match is None:
                raise RequestError(f"{text!r} is no text of the toy model's tokens {self.model.texts!r}")
            tokens.append(match)
            text = text[len(self.model.texts[match]) :]
        return tuple(tokens)

    async def _continue(self, parent: Node, key: BranchKey, params: SamplingParams, step_end: StepEnd | None) -> Node:
        try:
            if self._slots is None:
                return await self._draw(parent, key, params, step_end)
            async with self._slots:
                return await self._draw(parent, key, params, step_end)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def _draw(self, parent: Node, key: BranchKey, params: SamplingParams, step_end: StepEnd | None) -> Node:
        tokens = list(parent.tokens)
        details: list[TokenDetail] = []
        room = self.max_model_len - len(parent.prompt_tokens) - len(tokens)
        limit = room if params.max_tokens is None else min(room, params.max_tokens)
        text, reason, at_step_end = parent.text, None, False
        start = len(tokens)
        while reason is None and not at_step_end:
            if len(tokens) - start >= limit:
                reason = "length"
                break
            for _ in range(1 if self.pace is None else self.pace(key)):
                await asyncio.sleep(0)
            law = self.models[parent.model].conditional(tuple(tokens), params.temperature)
            chances, log_mass = _restricted(law, params)
            token = _inverse_cdf(chances, key, len(tokens))
            if params.logprobs is not None:
                details.append(self._detail(parent.model, tuple(tokens), token, params.logprobs, log_mass))
            tokens.append(token)
            self._count(parent, generated=1)
            text += self.model.texts[token]
            text, reason = self._finish(text, token, len(parent.text), params)
            at_step_end = reason is None and _ends_step(text[len(parent.text) :], token, len(tokens) - start, step_end)
        known = params.logprobs is not None and (parent.parent is None or parent.token_logprobs is not None)
        logprobs = (*(parent.token_logprobs or ()), *(detail.logprob for detail in details))
        drawn = Node(
            key=key,
            parent=parent,
            tokens=tuple(tokens),
            text=text,
            prompt_tokens=parent.prompt_tokens,
            token_logprobs=logprobs if known else None,
            model=parent.model,
            finish_reason=reason,
            step_end=at_step_end,
            num_new_tokens=len(tokens) - start,
            details=tuple(details),
            usage=parent.usage,
        )
        return self._hold(drawn)

    def _hold(self, node: Node) -> Node:
        self.live.add(node.key)
        self._held[node.key] = node
        return node

    def _let_go(self, key: BranchKey) -> None:
        self.live.discard(key)
        self._held.pop(key, None)

    def _finish(self, text: str, token: int, start: int, params: SamplingParams) -> tuple[str, str | None]:
        if token == self.model.eos or token in params.stop_token_ids:
            return text, "stop"
        for stop in params.stop_strings:
            found = text.find(stop, start)
            if found >= 0:
                return text[: found + (len(stop) if params.include_stop_str_in_output else 0)], "stop"
        return text, None

    def _step_scores(self, node: Node, table: RewardTable) -> tuple[float, ...]:
        ends = [at + 1 for at, token in enumerate(node.tokens) if self.model.texts[token].endswith("\n")]
        if not ends or ends[-1] != len(node.tokens):
            ends.append(len(node.tokens))
        return tuple(table(node.tokens[:end]) for end in ends)

    def _newly_read(self, node: Node, model: str) -> int:
        """Tokens behind the nearest node that the model has read; the prompt's too if it has not read the root."""
        root = node.root
        read = self._read.setdefault(root.key, set())
        above: Node = node
        while above is not root and above.parent is not None and (model, above.key) not in read:
            above = above.parent
        unread = node.num_tokens - above.num_tokens
        if above is root and (model, root.key) not in read:
            unread += len(node.prompt_tokens)
            read.add((model, root.key))
        read.add((model, node.key))
        return unread

    def _logprob(self, model: str | None, prefix: TokenIds, token: int) -> float:
        chance = float(self.models[model].next_token(prefix)[token])
        return float(np.log(chance)) if chance > 0 else -np.inf

    def _detail(self, model: str | None, prefix: TokenIds, token: int, num_top: int, log_mass: float) -> TokenDetail:
        with np.errstate(divide="ignore"):
            logprobs = np.log(self.models[model].next_token(prefix))
        order = np.argsort(-logprobs, kind="stable")[:num_top]
        top = tuple((int(i), float(logprobs[i])) for i in order)
        mean = float(np.maximum(logprobs, _LEAST_LOGPROB).mean())
        return TokenDetail(float(logprobs[token]), top, mean, log_mass)

    def _count_prompt(self, node: Node, n: int) -> None:
        """A root's prompt is run for its first continuation and shared by the others."""
        length = len(node.prompt_tokens) * n if node.parent is None else 0
        first = 0 if node.parent is not None or node.key in self._prefilled else len(node.prompt_tokens)
        self._prefilled.add(node.key)
        self._count(node, calls=1, prompt=length, prompt_cached=length - first)

    def _count(self, node: Node, **counts: int) -> None:
        ran = Usage(**counts)
        self.usage.add(ran)
        node.usage.add(ran)

    def _check(self, node: Node, params: SamplingParams) -> None:
        if not node.open:
            raise RequestError(f"the node is finished ({node.finish_reason}); only open nodes can be extended")
        if node.key not in self.live:
            raise RequestError("the node was released; keep it until its last extension")
        for name, usual in _USUAL.items():
            if name not in _UNDERSTOOD and getattr(params, name) != usual:
                raise CapabilityError(f"the toy model does not know {name}={getattr(params, name)!r}: leave it out")


def _restricted(chances: FloatArray, params: SamplingParams) -> tuple[FloatArray, float]:
    """What the parameters leave of a distribution (not normalised), and the log of the mass that the allowed ids have.

    Raises:
        EngineError: nothing is left.
    """
    log_mass = 0.0
    if params.allowed_token_ids is not None:
        mask = np.zeros(len(chances))
        mask[list(params.allowed_token_ids)] = 1.0
        chances = chances * mask
        if not chances.any():
            raise EngineError("no token can be drawn: allowed_token_ids forbid all of them")
        log_mass = float(np.log(chances.sum()))
    if params.top_k <= 0 and params.top_p == 1:
        return chances, log_mass
    order = np.argsort(-chances, kind="stable")
    keep = len(order) if params.top_k <= 0 else min(params.top_k, len(order))
    if params.top_p < 1:
        before = np.cumsum(chances[order]) - chances[order]
        keep = min(keep, int((before < params.top_p * chances.sum()).sum()))
    left = np.zeros_like(chances)
    left[order[:keep]] = chances[order[:keep]]
    return left, log_mass


def _ends(node: Node) -> range:
    """Lengths of the prefixes that a node holds."""
    return range(1, len(node.tokens) + 1)


def _inverse_cdf(chances: FloatArray, key: BranchKey, position: int) -> int:
    heights = np.cumsum(chances)
    mark = uniform(key_arrays([key]), np.array([position]))[0] * heights[-1]
    return int(np.searchsorted(heights, mark, side="right"))


def _ends_step(new_text: str, token: int, num_new: int, step_end: StepEnd | None) -> bool:
    if step_end is None:
        return False
    if token in step_end.stop_token_ids or any(stop in new_text for stop in step_end.stop):
        return True
    return step_end.max_tokens is not None and num_new >= step_end.max_tokens


def _prompt_tokens(prompt: Prompt) -> TokenIds:
    if isinstance(prompt, str):
        return tuple(prompt.encode())
    if isinstance(prompt, Mapping):
        return _prompt_tokens(prompt.get("prompt_token_ids") or prompt.get("prompt", ""))
    return tuple(
        token for part in prompt for token in (str(part["content"]).encode() if isinstance(part, Mapping) else (part,))
    )
