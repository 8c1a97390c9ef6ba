"""Vectors of texts: from a request's body to its answer. The inputs of a request run together."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ramify.engine.engine import settle
from ramify.engine.request import EngineRequest, SequenceOutput
from ramify.errors import EngineError, RequestError
from ramify.models.pooling import Pooling
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams, TokenIds
from ramify.serving.admission import Work
from ramify.serving.auth import Caller
from ramify.serving.errors import ApiError
from ramify.serving.generation import Call
from ramify.serving.models import ServedModel
from ramify.serving.prompts import encode
from ramify.serving.protocol.completions import OnePrompt
from ramify.serving.protocol.embeddings import EmbeddingRequest
from ramify.serving.scoring import Reading, call_of, check_inputs, reading
from ramify.serving.server import Server

Vector = npt.NDArray[np.float32]
_NOTHING = SamplingParams(max_tokens=0, detokenize=False)
_KEY = BranchKey.root(0, "embedding")  # nothing is drawn


async def embed(server: Server, caller: Caller, body: EmbeddingRequest, request_id: str) -> dict[str, Any]:
    """The whole answer.

    Raises:
        ApiError, RequestError: it cannot be served.
        EngineError: it failed while it ran.
    """
    async with server.models.use(body.model, caller) as model:
        inputs = body.inputs()
        check_inputs("input", len(inputs), server.config.limits)
        pooling = pooling_of(model)
        size = _checked_size(body.dimensions, model, pooling)
        texts = [await input_ids(model, pooling, given) for given in inputs]
        vectors, counts = await vectors_of(server, model, texts, call_of(body, caller, request_id))
    # A thousand vectors are a million numbers: written elsewhere, they hold up nobody's stream.
    data = await asyncio.to_thread(_written, vectors, size, body.encoding_format)
    return {"object": "list", "data": data, "model": body.model, "usage": counts.usage}


def pooling_of(model: ServedModel) -> Pooling:
    """How a model makes vectors. Raises ApiError: 400, it makes none."""
    pooling = model.engine.model_config.pooling
    if pooling is None:
        message = f"model {model.name!r} scores texts and gives no vectors: use an embedding or a generative model"
        raise ApiError(400, message, param="model")
    return pooling


async def vectors_of(
    server: Server, model: ServedModel, texts: Sequence[TokenIds], call: Call
) -> tuple[list[Vector], Reading]:
    """A vector for each text, [hidden], and what was read.

    Raises:
        ApiError, RequestError, EngineError: see `embed`.
    """
    for ids in texts:
        if len(ids) > model.max_model_len:
            message = f"an input has {len(ids):,} tokens and the model's context is {model.max_model_len:,}: shorten it"
            raise RequestError(message)
    async with reading(server, model, call, Work(sum(map(len, texts)), len(texts))) as counts:
        tasks = [asyncio.create_task(_vector(model, ids, call, counts)) for ids in texts]
        try:
            return list(await asyncio.gather(*tasks)), counts
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _vector(model: ServedModel, ids: TokenIds, call: Call, counts: Reading) -> Vector:
    done: asyncio.Future[SequenceOutput] = asyncio.get_running_loop().create_future()
    request = EngineRequest(ids, _NOTHING, _KEY, priority=counts.priority, cache_salt=call.salt, embed=True)
    (sequence_id,) = await model.engine.add(request, settle(done))
    try:
        output = await done
    except asyncio.CancelledError:
        model.engine.drop([sequence_id])
        raise
    if output.error is not None:
        raise output.error
    if output.embedding is None:
        raise EngineError("the engine gave no vector")
    counts.prompt_tokens += len(ids)
    counts.cached_tokens += output.num_cached_tokens
    return output.embedding


async def input_ids(model: ServedModel, pooling: Pooling, given: OnePrompt) -> TokenIds:
    """The tokens of an input. Raises RequestError: it has none."""
    if not isinstance(given, str):
        return tuple(given)
    ids = await encode(model.tokenizer, pooling.prompt + given)
    if not ids:
        raise RequestError("an input is empty (no token): give text, or leave it out")
    return ids


def _checked_size(asked: int | None, model: ServedModel, pooling: Pooling) -> int | None:
    """Numbers of a vector that are wanted; None is all of them."""
    full = model.engine.model_config.hidden_size
    if asked is None or asked == full:
        return None
    if not pooling.matryoshka:
        message = (
            f"dimensions={asked} does not work: the vectors of {model.name!r} have {full} numbers, and its checkpoint "
            "does not say that they may be cut (is_matryoshka or matryoshka_dimensions in config.json): leave it out"
        )
        raise ApiError(400, message, param="dimensions")
    if asked > full or (pooling.dimensions and asked not in pooling.dimensions):
        allowed = ", ".join(map(str, pooling.dimensions)) if pooling.dimensions else f"1 to {full}"
        raise ApiError(400, f"dimensions={asked} does not work: choose from {allowed}", param="dimensions")
    return asked


def _cut(vector: Vector, size: int | None) -> Vector:
    """The first numbers, at unit length."""
    if size is None:
        return vector
    part = vector[:size].astype(np.float64)
    length = float(np.linalg.norm(part))
    if length == 0:
        raise EngineError(f"the first {size} numbers of a vector are all zero")
    return (part / length).astype(np.float32)


def _written(vectors: Sequence[Vector], size: int | None, encoding: str | None) -> msgspec.Raw:
    """The list of vectors as JSON."""
    data = []
    for place, vector in enumerate(vectors):
        cut = _cut(vector, size)
        numbers = base64.b64encode(cut.astype("<f4").tobytes()) if encoding == "base64" else cut.tolist()
        written = numbers.decode() if isinstance(numbers, bytes) else numbers
        data.append({"object": "embedding", "index": place, "embedding": written})
    return msgspec.Raw(msgspec.json.encode(data))
