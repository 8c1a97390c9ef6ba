"""Any OpenAI-compatible endpoint as a `Backend`: fewer capabilities than the local engine, the same strategies.

Such a server speaks text, so a node here has no token ids: known text is put behind an answer as UTF-8 bytes (an "id"
is a byte), and the number of bytes stands for the number of tokens wherever an upper bound is needed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np

from ramify.backends.base import Capability, FloatArray, Node, StepEnd, StepScores, Usage
from ramify.backends.openai_client import Answer, Ask, Client, Endpoint
from ramify.errors import CapabilityError, ConfigError, PromptTooLongError, RequestError
from ramify.randomness import BranchKey
from ramify.sampling import Prompt, SamplingParams, TokenIds

_SEEDS = 2**31 - 1  # what servers take without trouble


class OpenAIBackend:
    """Models behind an OpenAI-compatible server.

    Tokens are counted as the server reports them; of a branch that was stopped in the middle, as its pieces came (one a
    token, or by their log-probabilities where those are given). What a broken attempt had drawn is counted as ``lost``.

    Args:
        endpoint: where it is and what it can do.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.capabilities = capabilities_of(endpoint)
        self.usage = Usage()
        self.max_model_len = endpoint.max_model_len
        self._client = Client(endpoint, self.usage)
        self._models: dict[str | None, str] = {None: endpoint.model, **{name: name for name in endpoint.models}}
        self._running: dict[BranchKey, set[asyncio.Task[None]]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections."""
        await self._client.close()

    async def root(self, prompt: Prompt, key: BranchKey, usage: Usage | None = None, model: str | None = None) -> Node:
        """The root of a tree over text or messages.

        Raises:
            PromptTooLongError: it leaves no room for an answer.
            RequestError: the prompt has token ids, or there is no such model.
        """
        length = self.context_length(model)
        given = _messages(prompt)
        size = self.encode("".join(str(message["content"]) for message in given))
        if len(size) >= length:
            raise PromptTooLongError(
                f"the prompt has up to {len(size):,} tokens and max_model_len is {length:,}: shorten it, or set the "
                "endpoint's max_model_len to what the server really holds"
            )
        meter = usage if usage is not None else Usage()
        return Node(key, prompt_tokens=size, model=model, usage=meter, handle=given)

    def context_length(self, model: str | None = None) -> int:
        """The endpoint's `max_model_len`, for each of its models."""
        if model not in self._models:
            known = ", ".join(name for name in self._models if name) or "none"
            raise RequestError(f"the endpoint was set up without a model {model!r} (besides its main one: {known})")
        return self.max_model_len

    async def extend(
        self, node: Node, params: SamplingParams, n: int = 1, first_child: int = 0, step_end: StepEnd | None = None
    ) -> AsyncGenerator[Node, None]:
        """Draw `n` continuations, in one call where the server can and draws need not repeat, else in one each.

        Raises:
            CapabilityError: the node has an answer already, and the endpoint cannot continue one.
        """
        if not node.open:
            raise RequestError(f"the node is finished ({node.finish_reason}); only open nodes can be extended")
        if node.text and Capability.CONTINUE not in self.capabilities:
            raise CapabilityError("the endpoint cannot continue an answer: use api=completions, or set continuation")
        keyed = self.endpoint.seed or self.endpoint.branch_keys
        together = self.endpoint.n and not keyed
        groups = (
            [range(first_child, first_child + n)]
            if together
            else [range(index, index + 1) for index in range(first_child, first_child + n)]
        )
        done: asyncio.Queue[Node | Exception] = asyncio.Queue()
        tasks = [asyncio.create_task(self._draw(node, params, group, step_end, done)) for group in groups]
        below = self._running.setdefault(node.key, set())
        below.update(tasks)
        try:
            for _ in range(n):
                outcome = await done.get()
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            below.difference_update(tasks)

    async def append(self, node: Node, tokens: TokenIds, key: BranchKey, keep: int | None = None) -> Node:
        """Known text behind an answer. Raises `CapabilityError` for `keep`: without ids nothing can be cut."""
        if keep is not None:
            raise CapabilityError("an endpoint gives no token ids, so an answer cannot be cut to some of its tokens")
        text = node.text + bytes(tokens).decode()
        return Node(key, node, (), text, node.prompt_tokens, model=node.model, usage=node.usage, handle=node.handle)

    def free_tokens(self) -> int | None:
        """The server does not say."""
        return None

    async def logprobs(self, node: Node, continuations: Sequence[TokenIds]) -> list[FloatArray]:
        """Log-probabilities of texts behind a node, one number a token of the server's."""
        if Capability.PROMPT_SCORING not in self.capabilities:
            raise CapabilityError("the endpoint does not score given text: use api=completions and echo=True")
        prefix = _plain(node.handle) + node.text
        model = self._models[node.model]
        texts = [prefix + bytes(tokens).decode() for tokens in continuations]
        found = await asyncio.gather(*(self._client.score(model, text, len(prefix), node.usage) for text in texts))
        return [np.array(values, dtype=np.float64) for values in found]

    async def reward(self, nodes: Sequence[Node], model: str) -> list[StepScores]:
        """Not offered."""
        raise CapabilityError("an OpenAI-compatible endpoint serves no process rewards here: use another scorer")

    def release(self, nodes: Iterable[Node]) -> None:
        """Close the streams of what runs below some nodes."""
        for node in nodes:
            for task in self._running.pop(node.key, ()):
                task.cancel()

    def encode(self, text: str, model: str | None = None) -> TokenIds:
        """The UTF-8 bytes of a text."""
        return tuple(text.encode())

    async def _draw(
        self,
        node: Node,
        params: SamplingParams,
        children: range,
        step_end: StepEnd | None,
        done: asyncio.Queue[Node | Exception],
    ) -> None:
        try:
            ask = self._ask(node, params, children, step_end or StepEnd())
            async with aclosing(self._client.draw(ask, len(children), node.usage)) as answers:
                async for index, answer in answers:
                    done.put_nowait(_node(node, node.key.child(children[index]), answer, params))
        except Exception as error:
            done.put_nowait(error)

    def _ask(self, node: Node, params: SamplingParams, children: range, step_end: StepEnd) -> Ask:
        key = node.key.child(children[0])
        extra: dict[str, Any] = {}
        if self.endpoint.branch_keys:
            parent = node.key
            extra["ramify"] = {"branch_key": f"{parent.high:016x}{parent.low:016x}", "child": children[0]}
        if self.endpoint.seed and params.seed is None:
            params = params.with_(seed=(key.low ^ key.high) % _SEEDS)
        model = self._models[node.model]
        if self.endpoint.api == "completions":
            return Ask(model, params, step_end, _plain(node.handle) + node.text, extra=extra)
        messages: list[Mapping[str, Any]] = list(node.handle)
        if node.text:
            messages.append({"role": "assistant", "content": node.text})
            if self.endpoint.continuation == "prefix":
                messages[-1] = {**messages[-1], "prefix": True}
            else:
                extra |= {"continue_final_message": True, "add_generation_prompt": False}
        return Ask(model, params, step_end, node.text, messages, extra)


def capabilities_of(endpoint: Endpoint) -> frozenset[Capability]:
    """What strategies may ask of an endpoint."""
    offered = {Capability.CANCEL}
    if endpoint.n:
        offered.add(Capability.N)
    if endpoint.logprobs:
        offered.add(Capability.LOGPROBS)
    if endpoint.seed or endpoint.branch_keys:
        offered.add(Capability.SEED)
    if endpoint.api == "completions" or endpoint.continuation != "none":
        offered.add(Capability.CONTINUE)
    if endpoint.api == "completions" and endpoint.echo:
        offered.add(Capability.PROMPT_SCORING)
    return frozenset(offered)


def load_prices(path: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """A cost table: a JSON file of model -> {prompt, prompt_cached, generated, ...} in dollars per million tokens.

    Raises:
        ConfigError: it is no such table.
    """
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=dict[str, dict[str, float]])
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is no cost table (model -> prices per million tokens): {error}") from error


def _node(parent: Node, key: BranchKey, answer: Answer, params: SamplingParams) -> Node:
    known = params.logprobs is not None and (parent.parent is None or parent.token_logprobs is not None)
    logprobs = (*(parent.token_logprobs or ()), *(detail.logprob for detail in answer.details))
    return Node(
        key,
        parent,
        (),
        parent.text + answer.text,
        parent.prompt_tokens,
        logprobs if known else None,
        parent.model,
        answer.finish_reason,
        answer.step_end,
        answer.num_tokens,
        tuple(answer.details),
        parent.usage,
        parent.handle,
    )


def _messages(prompt: Prompt) -> tuple[Mapping[str, Any], ...]:
    """A prompt as chat messages; plain text is one of the user's."""
    if isinstance(prompt, Mapping) and isinstance(prompt.get("prompt"), str):
        prompt = prompt["prompt"]
    if isinstance(prompt, str):
        return ({"role": "user", "content": prompt},)
    if isinstance(prompt, Sequence) and prompt and all(isinstance(message, Mapping) for message in prompt):
        return tuple(message for message in prompt if isinstance(message, Mapping))
    raise RequestError("an endpoint takes text or chat messages, no token ids: give the problem's text")


def _plain(messages: Sequence[Mapping[str, Any]]) -> str:
    """Messages as the completions API's prompt. Raises `CapabilityError` for a conversation."""
    if len(messages) != 1 or messages[0]["role"] != "user":
        raise CapabilityError("the completions API takes one text, and this prompt is a conversation: use api=chat")
    return str(messages[0]["content"])
