"""The local engine as a `Backend`: a branch is a forked KV cache, dropping it frees its memory before the next step.

A node's handle names the parked sequence that holds its KV; extending it forks that sequence. Reward models are engines
of their own in the same process; a node's score continues from the nearest ancestor that was scored, so that each token
of a tree is verified once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np

from ramify.backends.base import Capability, FloatArray, Node, StepEnd, StepScores, Usage, kept
from ramify.backends.branch import Branch
from ramify.backends.rewards import RewardModel
from ramify.config import EngineConfig
from ramify.engine.async_engine import AsyncEngine
from ramify.engine.core import EngineCore
from ramify.engine.engine import Engine, EngineShare, Listener, settle
from ramify.engine.loading import ModelToLoad, load_engines
from ramify.engine.request import EngineRequest, SequenceOutput, TextStart
from ramify.errors import CapabilityError, EngineError, PromptTooLongError, RequestError
from ramify.models.reward_head import parse_reward_head
from ramify.randomness import BranchKey
from ramify.sampling import Prompt, SamplingParams, TokenIds
from ramify.text.detokenizer import Detokenizer
from ramify.text.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """One model that runs.

    Attributes:
        engine: in this process or in another.
        tokenizer: of the model.
    """

    engine: Engine
    tokenizer: Tokenizer


@dataclass(slots=True)
class Handle:
    """What the backend keeps of a node.

    Attributes:
        served: the model that it belongs to.
        sequence_id: the parked sequence with its KV; None for a root that has not run, or a finished node.
        detokenizer: where the text of its children goes on.
        running: sequences that run below it, and who waits for each.
    """

    served: Served
    sequence_id: int | None
    detokenizer: Detokenizer
    running: dict[int, asyncio.Queue[Branch]] = field(default_factory=dict)


class LocalBackend:
    """One main model, and others and reward models by name, on engines of this machine.

    Args:
        main: the model.
        rewards: name -> reward model.
        models: name -> other model.
        thread: on which the engines run, if it ends with the backend. Closing the backend closes the engines.
    """

    def __init__(
        self,
        main: Served,
        rewards: Mapping[str, Served] | None = None,
        models: Mapping[str, Served] | None = None,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        self._thread = thread
        self.engine = main.engine
        self.tokenizer = main.tokenizer
        self._models: dict[str | None, Served] = {None: main}
        self._models.update(models or {})
        self.usage = Usage()
        self.max_model_len = main.engine.max_model_len
        self._rewards = {
            name: RewardModel(name, served.engine, served.tokenizer, main.tokenizer)
            for name, served in (rewards or {}).items()
        }
        self.capabilities = frozenset(Capability) if rewards else frozenset(Capability) - {Capability.REWARD}

    @classmethod
    def sharing(
        cls,
        main: Served,
        rewards: Mapping[str, Served] | None = None,
        models: Mapping[str, Served] | None = None,
        *,
        priority: int = 0,
        cache_salt: str = "",
    ) -> LocalBackend:
        """A backend on engines that others use too: closing it ends what it has running there and nothing else.

        Args:
            main, rewards, models: as for the constructor.
            priority: of all its requests; lower runs first under the priority policy.
            cache_salt: its prompts share computed prefixes only with those of the same salt.
        """

        def part(served: Served) -> Served:
            return Served(EngineShare(served.engine, priority, cache_salt), served.tokenizer)

        def parts(several: Mapping[str, Served] | None) -> dict[str, Served]:
            return {name: part(served) for name, served in (several or {}).items()}

        return cls(part(main), parts(rewards), parts(models))

    @classmethod
    def on_cores(
        cls,
        main: tuple[EngineCore, Tokenizer],
        rewards: Mapping[str, tuple[EngineCore, Tokenizer]] | None = None,
        models: Mapping[str, tuple[EngineCore, Tokenizer]] | None = None,
    ) -> LocalBackend:
        """A backend that runs engines on a thread of this process, which nobody else uses meanwhile."""
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ramify-engine")

        def served(loaded: tuple[EngineCore, Tokenizer]) -> Served:
            return Served(AsyncEngine(loaded[0], thread), loaded[1])

        def several(loaded: Mapping[str, tuple[EngineCore, Tokenizer]] | None) -> dict[str, Served]:
            return {name: served(each) for name, each in (loaded or {}).items()}

        return cls(served(main), several(rewards), several(models), thread)

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        reward_models: Iterable[str] | Mapping[str, Mapping[str, Any]] = (),
        models: Iterable[str] = (),
        **engine_options: Any,
    ) -> LocalBackend:
        """Load a model, its reward models and other models, all with the same engine options and one memory budget.

        Args:
            model: a bundled name, a checkpoint's folder, or a hub id.
            reward_models: the same; a mapping from these to what `config.json` does not say of one, by the names of
                `RewardHead`, such as ``{"folder": {"step_token": "\\n", "good_label": 1}}``.
            models: other models that can be asked for by name.
            engine_options: fields of `EngineConfig`. The share of memory is for all pools together; a fixed number of
                blocks is for each.

        Raises:
            ModelNotFoundError, UnsupportedModelError, CheckpointError, ConfigError: see `load_engine`.
            RequestError: a reward model is none.
        """
        config = EngineConfig.from_options(engine_options)
        said = reward_models if isinstance(reward_models, Mapping) else {name: {} for name in reward_models}
        heads = {name: parse_reward_head(options, f"reward model {name}") for name, options in said.items()}
        others = list(dict.fromkeys(models))
        wanted = [ModelToLoad(model), *(ModelToLoad(*pair) for pair in heads.items()), *map(ModelToLoad, others)]
        loaded = [(core, load_tokenizer(folder)) for core, folder in load_engines(wanted, config)]
        rewards = dict(zip(heads, loaded[1:], strict=False))
        return cls.on_cores(loaded[0], rewards, dict(zip(others, loaded[1 + len(heads) :], strict=True)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop all that runs, and end the engines if they are the backend's own."""
        for engine in (each.engine for group in (self._rewards, self._models) for each in group.values()):
            await engine.close()
        if self._thread is not None:
            self._thread.shutdown()

    async def root(self, prompt: Prompt, key: BranchKey, usage: Usage | None = None, model: str | None = None) -> Node:
        """The root of a tree. Plain text becomes a user's message where the model has a chat template.

        Ids that stand beside a text or messages are the main model's; others read the text or the messages.

        Raises:
            PromptTooLongError: it leaves no room for an answer.
            RequestError: there is no such model here.
        """
        served, length = self._served(model), self.context_length(model)
        if model is not None and isinstance(prompt, Mapping) and len(prompt) > 1:
            prompt = {key: value for key, value in prompt.items() if key != "prompt_token_ids"}
        if isinstance(prompt, str) and served.tokenizer.chat_template is not None:
            prompt = ({"role": "user", "content": prompt},)
        tokens = served.tokenizer.prompt_ids(prompt)
        if len(tokens) >= length:
            raise PromptTooLongError(f"the prompt has {len(tokens):,} tokens and the context is {length:,}: shorten it")
        handle = Handle(served, None, Detokenizer(served.tokenizer))
        meter = usage if usage is not None else Usage()
        return Node(key, prompt_tokens=tokens, model=model, usage=meter, handle=handle)

    def context_length(self, model: str | None = None) -> int:
        """Tokens of prompt and answer together that a model can hold."""
        return self._served(model).engine.max_model_len

    async def extend(
        self, node: Node, params: SamplingParams, n: int = 1, first_child: int = 0, step_end: StepEnd | None = None
    ) -> AsyncGenerator[Node, None]:
        """Draw `n` continuations of an open node; yields each as it finishes."""
        if not node.open:
            raise RequestError(f"the node is finished ({node.finish_reason}); only open nodes can be extended")
        done: asyncio.Queue[Branch] = asyncio.Queue()
        branches: dict[int, Branch] = {}
        early: list[SequenceOutput] = []

        def listen(output: SequenceOutput) -> None:
            branch = branches.get(output.sequence_id)
            if branch is None:
                early.append(output)
                return
            self._push(branch, output, done)

        served: Served = node.handle.served
        window, given = node.handle.detokenizer.state
        start = TextStart(window=window, given=given, step_end=step_end)
        try:
            ids = await self._start(node, params, n, first_child, listen, start)
        except BaseException:
            self._count_unheard(node, early)
            raise
        for index, sequence_id in enumerate(ids):
            key = node.key.child(first_child + index)
            branches[sequence_id] = Branch(sequence_id, key, node, params, start, served.tokenizer)
        below: dict[int, asyncio.Queue[Branch]] = node.handle.running
        below.update(dict.fromkeys(ids, done))
        for output in early:
            listen(output)
        left = set(ids)
        try:
            for _ in ids:
                branch = await done.get()
                left.discard(branch.sequence_id)
                if branch.error is not None:
                    raise branch.error
                yield self._node(branch)
        finally:
            for sequence_id in ids:
                below.pop(sequence_id, None)
            if left:
                await served.engine.dropped(left)

    async def append(self, node: Node, tokens: TokenIds, key: BranchKey, keep: int | None = None) -> Node:
        """An open node with known tokens behind `node`, or behind its first `keep` tokens; see `Backend.append`.

        All but the last token are computed here, once; the last one with the first draw behind it.
        """
        parent, left = kept(node, keep)
        base: Node = parent
        while base.parent is not None and base.handle.sequence_id is None:
            base = base.parent
        ids = (*parent.tokens[len(base.tokens) :], *left, *tokens)
        if not ids:
            raise RequestError("nothing to append: give at least one token")
        length, context = len(node.prompt_tokens) + len(base.tokens) + len(ids), self.context_length(node.model)
        if length >= context:
            raise PromptTooLongError(
                f"prompt, answer and appended tokens are {length:,} and the context is {context:,}: "
                "append fewer, or keep less of the answer"
            )
        detokenizer = base.handle.detokenizer.copy()
        text = base.text + detokenizer.push(ids)
        sequence_id = await self._park(base, ids, key, node)
        child = Node(
            key, parent, (*base.tokens, *ids), text, node.prompt_tokens,
            model=node.model, num_new_tokens=len(left), usage=node.usage,
            handle=Handle(node.handle.served, sequence_id, detokenizer),
        )  # fmt: skip
        for reward_model in self._rewards.values():
            reward_model.adopt(child)
        return child

    def free_tokens(self) -> int:
        """Tokens that fit the KV blocks of the main model that no running or parked sequence holds."""
        return self.engine.stats().blocks_free * self.engine.config.block_size

    async def logprobs(self, node: Node, continuations: Sequence[TokenIds]) -> list[FloatArray]:
        """Log-probabilities of continuations: prompt rows of requests that find the node's prefix in the cache."""
        prefix = (*node.prompt_tokens, *node.tokens)
        params = SamplingParams(max_tokens=0, prompt_logprobs=0, detokenize=False)
        requests = [
            EngineRequest((*prefix, *tail), params, node.key, prompt_logprobs_start=len(prefix))
            for tail in continuations
        ]
        outputs = await asyncio.gather(*(_result_of(_engine_of(node), request) for request in requests))
        self._count(node, calls=1, probe=sum(map(len, continuations)))
        return [
            np.array([entry.logprob for entry in output.prompt_logprobs or () if entry is not None])
            for output in outputs
        ]

    async def reward(self, nodes: Sequence[Node], model: str) -> list[StepScores]:
        """Process rewards: one score a step so far. Only tokens that no scored ancestor has are run and charged.

        Raises:
            RequestError: there is no such reward model here, or it does not share the vocabulary of a node's model.
        """
        if model not in self._rewards:
            known = ", ".join(self._rewards) or "none"
            raise RequestError(f"no reward model {model!r} is loaded here (there are: {known}): load it too")
        for served in {id(node.handle.served): node.handle.served for node in nodes}.values():
            self._rewards[model].check_vocabulary(served.tokenizer)
        scores = await self._rewards[model].score(nodes)
        for node, score in zip(nodes, scores, strict=True):
            self._count(node, calls=1, verifier=score.num_tokens)
        return scores

    def release(self, nodes: Iterable[Node]) -> None:
        """Drop the nodes' KV, here and in the reward models, and stop what runs below them."""
        ids: dict[Served, list[int]] = {}
        for node in nodes:
            handle: Handle = node.handle
            going = ids.setdefault(handle.served, [])
            if handle.sequence_id is not None:
                going.append(handle.sequence_id)
                handle.sequence_id = None
            for sequence_id, waiting in handle.running.items():
                going.append(sequence_id)
                waiting.put_nowait(Branch.released(sequence_id))
            handle.running.clear()
            for reward_model in self._rewards.values():
                reward_model.release(node)
        for served, gone in ids.items():
            served.engine.drop(gone)

    def encode(self, text: str, model: str | None = None) -> TokenIds:
        """Token ids of a text, without special tokens."""
        return self._served(model).tokenizer.encode(text, add_special_tokens=False)

    def _served(self, model: str | None) -> Served:
        if model not in self._models:
            known = ", ".join(name for name in self._models if name) or "none"
            raise RequestError(
                f"there is no model {model!r} here besides the main one (there are: {known}): load it too"
            )
        return self._models[model]

    async def _start(
        self, node: Node, params: SamplingParams, n: int, first_child: int, listen: Listener, start: TextStart
    ) -> list[int]:
        settings = params if params.n == 1 else params.with_(n=1)
        engine = _engine_of(node)
        if node.parent is None:
            request = EngineRequest(
                node.prompt_tokens, settings.with_(n=n), node.key, first_child=first_child, keep=True
            )
            return await engine.add(request, listen, start)
        if node.handle.sequence_id is None:
            raise CapabilityError("the node holds no KV any more: it was released")
        source = node.handle.sequence_id
        return await engine.fork_and_extend(source, node.key, n, first_child, settings, listen, text=start)

    async def _park(self, base: Node, ids: TokenIds, key: BranchKey, node: Node) -> int:
        """A parked sequence that holds `base` and `ids` behind it; all but the last id are computed."""
        head, nothing = ids[:-1], SamplingParams(max_tokens=0, detokenize=False)
        done: asyncio.Future[SequenceOutput] = asyncio.get_running_loop().create_future()
        listen, engine = settle(done), _engine_of(node)
        if base.parent is None:
            start = len(base.prompt_tokens)
            request = EngineRequest((*base.prompt_tokens, *head), nothing, key, keep=True, answer_start=start)
            (sequence_id,) = await engine.add(request, listen)
        else:
            (sequence_id,) = await engine.fork_and_extend(base.handle.sequence_id, key, 1, 0, nothing, listen, head)
        try:
            output = await done
            if output.error is not None:
                raise output.error
            await engine.append(sequence_id, ids[-1:])
        except BaseException:
            await engine.dropped([sequence_id])
            raise
        prompt = len(ids) + (len(base.prompt_tokens) if base.parent is None else 0)
        cached = output.num_cached_tokens if base.parent is None else 0
        self._count(node, calls=1, prompt=prompt, prompt_cached=cached)
        return sequence_id

    def _push(self, branch: Branch, output: SequenceOutput, done: asyncio.Queue[Branch]) -> None:
        if branch.ended:
            return
        self._count_output(branch.parent, output, first=not branch.started)
        if not branch.push(output):
            return
        engine = _engine_of(branch.parent)
        if output.finish_reason is None:
            engine.finish(output.sequence_id)
        if not branch.open and output.error is None:
            engine.drop([output.sequence_id])
        done.put_nowait(branch)

    def _node(self, branch: Branch) -> Node:
        node = branch.node(
            Handle(branch.parent.handle.served, branch.sequence_id if branch.open else None, branch.detokenizer)
        )
        for reward_model in self._rewards.values():
            reward_model.adopt(node)
        return node

    def _count_unheard(self, node: Node, outputs: Iterable[SequenceOutput]) -> None:
        """What ran for an extension that was cancelled before it knew its sequences."""
        started: set[int] = set()
        for output in outputs:
            self._count_output(node, output, first=output.sequence_id not in started)
            started.add(output.sequence_id)

    def _count_output(self, node: Node, output: SequenceOutput, first: bool) -> None:
        """A step's news of an extension of `node`; the first of a root's brings the prompt."""
        if first and node.parent is None:
            self._count(node, calls=1, prompt=len(node.prompt_tokens), prompt_cached=output.num_cached_tokens)
        self._count(node, generated=len(output.new_token_ids))

    def _count(self, node: Node, **counts: int) -> None:
        ran = Usage(**counts)
        self.usage.add(ran)
        node.usage.add(ran)


def _engine_of(node: Node) -> Engine:
    served: Served = node.handle.served
    return served.engine


async def _result_of(engine: Engine, request: EngineRequest) -> SequenceOutput:
    """The one output of a request that draws nothing."""
    done: asyncio.Future[SequenceOutput] = asyncio.get_running_loop().create_future()
    ids = await engine.add(request, settle(done))
    try:
        output = await done
    finally:
        await engine.dropped(ids)
    if isinstance(output.error, EngineError):
        raise output.error
    if output.error is not None:
        raise EngineError(str(output.error)) from output.error
    return output
