"""Scores of texts: reward models read a question and an answer, embedding models compare two texts.

A process reward model scores each step, and its last step's score stands for the answer. An outcome reward model scores
the whole. What one question shares with many answers is read once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ramify.backends.base import Node
from ramify.backends.rewards import RewardModel
from ramify.engine.engine import EngineShare
from ramify.errors import RequestError
from ramify.models.reward_head import RewardHead
from ramify.randomness import BranchKey
from ramify.sampling import TokenIds
from ramify.serving.admission import Work
from ramify.serving.auth import Caller
from ramify.serving.chat_prompts import render
from ramify.serving.embeddings import input_ids, pooling_of, vectors_of
from ramify.serving.errors import ApiError
from ramify.serving.generation import Call
from ramify.serving.models import ServedModel
from ramify.serving.prompts import encode
from ramify.serving.protocol.chat import ChatMessage
from ramify.serving.protocol.scores import RerankRequest, ScoreRequest
from ramify.serving.running import chat_style
from ramify.serving.scoring import call_of, check_inputs, reading
from ramify.serving.server import Server

ScoreKind = Literal["probability", "raw", "cosine"]
"""What a score is: a probability of being good, in [0, 1]; a number without bounds; a cosine, in [-1, 1]."""
_KEY = BranchKey.root(0, "score")  # nothing is drawn


@dataclass(frozen=True, slots=True)
class Scored:
    """What was found.

    Attributes:
        steps: for each text the scores of its steps; one alone where there are no steps.
        kind: what they are.
        usage: tokens that were read.
    """

    steps: list[tuple[float, ...]]
    kind: ScoreKind
    usage: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Pair:
    """What is asked and what is scored, as ids."""

    prompt: TokenIds
    answer: TokenIds


async def score(server: Server, caller: Caller, body: ScoreRequest, request_id: str) -> dict[str, Any]:
    """The answer of ``/v1/score``.

    Raises:
        ApiError, RequestError: it cannot be served.
        EngineError, ScorerError: it failed while it ran.
    """
    pairs, talks = body.pairs(), body.talks()
    check_inputs("text_2" if pairs else "conversations", len(pairs) + len(talks), server.config.limits)
    async with server.models.use(body.model, caller) as model:
        conversations = talks or [_conversation(*pair) for pair in pairs]
        scored = await _scored(server, model, pairs, conversations, call_of(body, caller, request_id))
        steps = _has_steps(model)
    data = [
        {"index": place, "object": "score", "score": found[-1], **({"step_scores": list(found)} if steps else {})}
        for place, found in enumerate(scored.steps)
    ]
    head = {"id": request_id, "object": "list", "created": int(time.time()), "model": body.model}
    return {**head, "data": data, "score_kind": scored.kind, "usage": scored.usage}


async def rerank(server: Server, caller: Caller, body: RerankRequest, request_id: str) -> dict[str, Any]:
    """The answer of ``/v1/rerank``; raises as `score` does."""
    texts = body.texts()
    check_inputs("documents", len(texts), server.config.limits)
    async with server.models.use(body.model, caller) as model:
        pairs = [(body.query, text) for text in texts]
        conversations = [_conversation(*pair) for pair in pairs]
        scored = await _scored(server, model, pairs, conversations, call_of(body, caller, request_id))
    ranked = sorted(range(len(texts)), key=lambda place: -scored.steps[place][-1])
    results: list[dict[str, Any]] = [
        {"index": place, "relevance_score": scored.steps[place][-1]} for place in ranked[: body.top_n or None]
    ]
    if body.return_documents is not False:
        for result in results:
            result["document"] = {"text": texts[result["index"]]}
    return {"id": request_id, "model": body.model, "results": results, "score_kind": scored.kind, "usage": scored.usage}


def _conversation(question: str, answer: str) -> list[ChatMessage]:
    turns = (("user", question), ("assistant", answer))
    return [ChatMessage.model_validate({"role": role, "content": text}) for role, text in turns]


def _has_steps(model: ServedModel) -> bool:
    head = model.engine.model_config.reward
    return head is not None and head.kind == "prm"


async def _scored(
    server: Server,
    model: ServedModel,
    pairs: Sequence[tuple[str, str]],
    conversations: Sequence[Sequence[ChatMessage]],
    call: Call,
) -> Scored:
    config = model.engine.model_config
    if config.reward is not None:
        return await _rewards(server, model, config.reward, conversations, call)
    if config.embeds and pairs:
        return await _cosines(server, model, pairs, call)
    needed = "a reward model" if config.embeds else "a reward or an embedding model"
    raise ApiError(400, f"model {model.name!r} gives no scores: this needs {needed}", param="model")


async def _rewards(
    server: Server, model: ServedModel, head: RewardHead, conversations: Sequence[Sequence[ChatMessage]], call: Call
) -> Scored:
    asked = [await _pair(server, model, head, messages) for messages in conversations]
    roots: dict[TokenIds, Node] = {}
    nodes: list[Node] = []
    for number, pair in enumerate(asked):
        root = roots.setdefault(pair.prompt, Node(_KEY.child(number), prompt_tokens=pair.prompt))
        key = _KEY.child(number).child(0)
        nodes.append(Node(key, root, pair.answer, prompt_tokens=pair.prompt, finish_reason="stop"))
    work = Work(sum(map(len, roots)) + sum(len(pair.answer) for pair in asked), len(asked))
    async with reading(server, model, call, work) as counts:
        share = EngineShare(model.engine, counts.priority, call.salt)
        try:
            found = await RewardModel(model.name, share, model.tokenizer, model.tokenizer).score(nodes)
        finally:
            await share.close()
        counts.prompt_tokens += sum(each.num_tokens for each in found)
    kind: ScoreKind = "probability" if found[0].range == (0.0, 1.0) else "raw"
    return Scored([each.scores for each in found], kind, counts.usage)


async def _pair(server: Server, model: ServedModel, head: RewardHead, messages: Sequence[ChatMessage]) -> _Pair:
    """A conversation as the model reads it: through its chat template, if it has one.

    A process reward model reads the answer's own tokens; an outcome reward model the template's whole text, with what
    ends the assistant's turn.
    """
    answer = messages[-1].content
    if messages[-1].role != "assistant" or not isinstance(answer, str) or len(messages) < 2:
        raise RequestError("what is scored is the assistant's answer: end the messages with it, as text")
    if not answer:
        raise RequestError("the answer to be scored is empty: give at least one token")
    tokenizer, timeout_s = model.tokenizer, server.config.limits.template_timeout_s
    if tokenizer.chat_template is None:
        return await _plain_pair(model, messages, answer)
    style = chat_style(server, model)
    asked = await render(style, messages[:-1], None, timeout_s, add_generation_prompt=True)
    if head.kind == "prm":
        return _Pair(asked.ids, await encode(tokenizer, answer, add_special_tokens=False))
    whole = await render(style, messages, None, timeout_s, add_generation_prompt=False)
    shared = next((i for i, pair in enumerate(zip(asked.ids, whole.ids, strict=False)) if pair[0] != pair[1]), None)
    length = max(1, min(len(asked.ids), len(whole.ids) - 1) if shared is None else shared)
    return _Pair(whole.ids[:length], whole.ids[length:])


async def _plain_pair(model: ServedModel, messages: Sequence[ChatMessage], answer: str) -> _Pair:
    question = messages[0].content
    if len(messages) != 2 or messages[0].role != "user" or not isinstance(question, str):
        raise RequestError("this model has no chat template: give one question and one answer, as text")
    prompt = await encode(model.tokenizer, question)
    if not prompt:
        raise RequestError("the question is empty (no token): give text")
    return _Pair(prompt, await encode(model.tokenizer, answer, add_special_tokens=False))


async def _cosines(server: Server, model: ServedModel, pairs: Sequence[tuple[str, str]], call: Call) -> Scored:
    pooling = pooling_of(model)
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    ids = [await input_ids(model, pooling, text) for text in texts]
    vectors, counts = await vectors_of(server, model, ids, call)
    unit = [vector / max(float((vector * vector).sum()) ** 0.5, _TINY) for vector in vectors]
    found = dict(zip(texts, unit, strict=True))
    return Scored([(float((found[a] * found[b]).sum()),) for a, b in pairs], "cosine", counts.usage)


_TINY = 1e-30  # a vector of zeros is like nothing else
