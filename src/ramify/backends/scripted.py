"""`ScriptedBackend`: a model that says what a script tells it to, for tests of programs of model calls.

A program's law is which prompts it sends and what it makes of each reply. Here the reply to every prompt is given by a
function, every prompt is kept, and every token (a word with the space behind it) is counted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ramify.backends.base import Capability, FloatArray, Node, StepEnd, StepScores, TokenDetail, Usage, kept
from ramify.errors import CapabilityError, PromptTooLongError, RequestError
from ramify.randomness import BranchKey
from ramify.sampling import Prompt, SamplingParams, TokenIds

Script = Callable[["Call"], str]
"""The whole reply to a call."""
Odds = Callable[["Call", str], float]
"""The log-probability of a continuation of a call."""
_WORD = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True, slots=True)
class Call:
    """What the model is asked.

    Attributes:
        prompt: as it was given.
        text: the prompt as plain text (the contents of a conversation's messages, one a line).
        answer: the part of the answer that is there already.
        model: which model; None for the main one.
        index: how many calls began before this one.
        params: how it shall be drawn.
    """

    prompt: Prompt
    text: str
    answer: str
    model: str | None
    index: int
    params: SamplingParams


class ScriptedBackend:
    """A `Backend` whose model is a function.

    Args:
        script: gives the reply to a call; it goes on behind ``call.answer``.
        rewards: reward models by name: the text of an answer to a score in [0, 1].
        odds: log-probabilities of given continuations; without it they cannot be asked for.
        models: scripts of other models, by name.
        max_model_len: tokens of prompt and answer together.
        logprob: what each token of a reply counts as log-probability.

    Attributes:
        calls: every call, in order.
    """

    def __init__(
        self,
        script: Script,
        rewards: Mapping[str, Callable[[str], float]] | None = None,
        odds: Odds | None = None,
        models: Mapping[str, Script] | None = None,
        max_model_len: int = 8192,
        logprob: float = -0.5,
    ) -> None:
        self.capabilities = frozenset(Capability) - (frozenset() if odds else {Capability.PROMPT_SCORING})
        self.usage = Usage()
        self.max_model_len = max_model_len
        self.calls: list[Call] = []
        self.live: set[BranchKey] = set()
        self._scripts: dict[str | None, Script] = {None: script}
        self._scripts.update((models or {}).items())
        self._rewards = dict(rewards or {})
        self._odds = odds
        self._logprob = logprob
        self._words: list[str] = []
        self._ids: dict[str, int] = {}

    async def root(self, prompt: Prompt, key: BranchKey, usage: Usage | None = None, model: str | None = None) -> Node:
        """The root of a tree over a prompt."""
        length = self.context_length(model)
        tokens = self._prompt_ids(prompt)
        if len(tokens) >= length:
            raise PromptTooLongError(f"the prompt has {len(tokens)} tokens and the context is {length}: shorten it")
        self.live.add(key)
        return Node(key, prompt_tokens=tokens, model=model, usage=usage or Usage(), handle=prompt)

    def context_length(self, model: str | None = None) -> int:
        """The same for every model."""
        if model not in self._scripts:
            known = ", ".join(name for name in self._scripts if name) or "none"
            raise RequestError(f"there is no model {model!r} here (there are: {known})")
        return self.max_model_len

    async def extend(
        self, node: Node, params: SamplingParams, n: int = 1, first_child: int = 0, step_end: StepEnd | None = None
    ) -> AsyncGenerator[Node, None]:
        """`n` replies, or their next steps."""
        if not node.open:
            raise RequestError(f"the node is finished ({node.finish_reason}); only open nodes can be extended")
        if node.parent is None:
            self._count(node, calls=1, prompt=len(node.prompt_tokens) * n)
        for index in range(first_child, first_child + n):
            await asyncio.sleep(0)
            yield self._reply(node, params, node.key.child(index), step_end or StepEnd())

    async def append(self, node: Node, tokens: TokenIds, key: BranchKey, keep: int | None = None) -> Node:
        """Known words behind an answer."""
        parent, left = kept(node, keep)
        ids = (*parent.tokens, *left, *tokens)
        self._count(node, calls=1, prompt=len(left) + len(tokens))
        text = parent.text + self._text(ids[len(parent.tokens) :])
        self.live.add(key)
        return Node(
            key, parent, ids, text, node.prompt_tokens,
            model=node.model, num_new_tokens=len(left), usage=node.usage, handle=node.handle,
        )  # fmt: skip

    def free_tokens(self) -> int | None:
        """Unknown: a script has no memory."""
        return None

    async def logprobs(self, node: Node, continuations: Sequence[TokenIds]) -> list[FloatArray]:
        """The odds of each continuation, on its first token."""
        if self._odds is None:
            raise CapabilityError("this script knows no log-probabilities: give it odds=")
        self._count(node, calls=1, probe=sum(map(len, continuations)))
        call = self._call(node, SamplingParams())
        found = [np.zeros(len(tokens)) for tokens in continuations]
        for values, tokens in zip(found, continuations, strict=True):
            values[0] = self._odds(call, self._text(tokens))
        return found

    async def reward(self, nodes: Sequence[Node], model: str) -> list[StepScores]:
        """One score a node, charged for the tokens that it added."""
        if model not in self._rewards:
            raise RequestError(f"no reward model {model!r} here; there are: {', '.join(self._rewards) or 'none'}")
        for node in nodes:
            self._count(node, calls=1, verifier=node.num_new_tokens)
        return [StepScores((self._rewards[model](node.text),), node.num_new_tokens) for node in nodes]

    def release(self, nodes: Iterable[Node]) -> None:
        """Forget nodes."""
        self.live.difference_update(node.key for node in nodes)

    def encode(self, text: str, model: str | None = None) -> TokenIds:
        """One id a word with the space behind it."""
        ids = []
        for word in _WORD.findall(text):
            if word not in self._ids:
                self._ids[word] = len(self._words)
                self._words.append(word)
            ids.append(self._ids[word])
        return tuple(ids)

    def _prompt_ids(self, prompt: Prompt) -> TokenIds:
        if isinstance(prompt, Sequence) and not isinstance(prompt, str):
            ids = tuple(token for token in prompt if isinstance(token, int))
            if len(ids) == len(prompt):
                return ids
        return self.encode(as_text(prompt))

    def _text(self, tokens: TokenIds) -> str:
        return "".join(self._words[token] for token in tokens)

    def _call(self, node: Node, params: SamplingParams) -> Call:
        root = node.root
        prompt: Prompt = root.handle
        return Call(prompt, self._text(root.prompt_tokens), node.text, node.model, len(self.calls), params)

    def _reply(self, parent: Node, params: SamplingParams, key: BranchKey, step_end: StepEnd) -> Node:
        call = self._call(parent, params)
        self.calls.append(call)
        words = self.encode(self._scripts[parent.model](call))
        room = self.max_model_len - len(parent.prompt_tokens) - len(parent.tokens)
        limit = room if params.max_tokens is None else min(room, params.max_tokens)
        drawn, text, reason, at_step_end = self._cut(words, limit, params, step_end)
        self._count(parent, generated=len(drawn))
        self.live.add(key)
        known = params.logprobs is not None and (parent.parent is None or parent.token_logprobs is not None)
        details = tuple(TokenDetail(self._logprob) for _ in drawn) if params.logprobs is not None else ()
        return Node(
            key, parent, (*parent.tokens, *drawn), parent.text + text, parent.prompt_tokens,
            (*(parent.token_logprobs or ()), *(detail.logprob for detail in details)) if known else None,
            parent.model, reason, at_step_end, len(drawn), details, parent.usage, parent.handle,
        )  # fmt: skip

    def _cut(
        self, words: TokenIds, limit: int, params: SamplingParams, step_end: StepEnd
    ) -> tuple[TokenIds, str, str | None, bool]:
        """What of a reply is said: its ids, its text, why it ends, and whether at a step's end."""
        text = ""
        for count, word in enumerate(words):
            if count == limit:
                return words[:count], text, "length", False
            text += self._words[word]
            for stop in params.stop_strings:
                if stop in text:
                    end = text.index(stop) + (len(stop) if params.include_stop_str_in_output else 0)
                    return words[: count + 1], text[:end], "stop", False
            last = count + 1 == len(words)
            long_enough = step_end.max_tokens is not None and count + 1 >= step_end.max_tokens
            if not last and (long_enough or any(stop in text for stop in step_end.stop)):
                return words[: count + 1], text, None, True
        return words, text, "stop", False

    def _count(self, node: Node, **counts: int) -> None:
        ran = Usage(**counts)
        self.usage.add(ran)
        node.usage.add(ran)


def as_text(prompt: Prompt) -> str:
    """A prompt of text or chat messages as plain text: the contents of the messages, one a line.

    Raises:
        RequestError: it is neither.
    """
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Mapping) and "prompt" in prompt:
        return str(prompt["prompt"])
    if isinstance(prompt, Sequence) and all(isinstance(message, Mapping) for message in prompt):
        return "\n".join(str(message["content"]) for message in prompt if isinstance(message, Mapping))
    raise RequestError(f"a script reads text or chat messages, not {type(prompt).__name__}")
