"""What a request must satisfy to be taken on: checked before anything is allocated; refusals name what would work."""

from __future__ import annotations

from collections.abc import Iterable

from ramify.engine.pooling import Pooler
from ramify.engine.request import EngineRequest
from ramify.engine.scheduler import Scheduler
from ramify.engine.sequence import Sequence
from ramify.errors import PoolTooSmallError, PromptTooLongError, RequestError
from ramify.models.config import ModelConfig
from ramify.models.pooling import Pooling
from ramify.sampling import SamplingParams


def check_request(
    request: EngineRequest, model: ModelConfig, max_model_len: int, scheduler: Scheduler
) -> tuple[int, frozenset[int]]:
    """Refuse a request that cannot be served; the `limits_of` one that can.

    Raises:
        PromptTooLongError: the prompt leaves no room for a token.
        PoolTooSmallError: prompt and output would not fit the KV pool even alone.
        RequestError: it is empty, or names ids or positions that do not exist.
    """
    length = len(request.prompt_ids)
    if length == 0:
        raise RequestError("the prompt is empty: give at least one token (a beginning-of-sequence token will do)")
    _check_ids("the prompt", request.prompt_ids, model.vocab_size)
    params = request.params
    _check_ids("allowed_token_ids", params.allowed_token_ids or (), model.vocab_size)
    _check_ids("logit_bias", params.logit_bias or (), model.vocab_size)
    _check_ids("stop_token_ids", params.stop_token_ids, model.vocab_size)
    _check_ids("score_token_ids", request.score_token_ids, model.num_outputs)
    for position in request.score_positions:
        if not 0 <= position < length:
            raise RequestError(f"score position {position} is outside of the prompt's {length} tokens")
    if request.answer_start is not None and not 0 <= request.answer_start <= length:
        raise RequestError(f"answer_start {request.answer_start} is outside of the prompt's {length} tokens")
    for mark in () if params.thinking_marks is None else (*params.thinking_marks.starts, *params.thinking_marks.ends):
        _check_ids("thinking_marks", mark, model.vocab_size)
    if request.embed:
        _check_embed(request, model)
    if request.score_positions and not request.score_token_ids:
        raise RequestError("score_positions without score_token_ids: say which ids' logits to read")
    return limits_of(params, length, model, max_model_len, scheduler)


def _check_embed(request: EngineRequest, model: ModelConfig) -> None:
    pooling, length = model.pooling, len(request.prompt_ids)
    if pooling is None:
        raise RequestError(f"this {model.architecture} scores texts and gives no vectors: embed with another model")
    if request.params.max_tokens != 0 or request.params.n != 1 or request.keep:
        raise RequestError("a vector is made of a prompt alone: use max_tokens=0, n=1 and keep=False")
    if pooling.max_tokens is not None and length > pooling.max_tokens:
        raise PromptTooLongError(
            f"the text has {length:,} tokens and the model embeds {pooling.max_tokens:,} at most: shorten it"
        )


def limits_of(
    params: SamplingParams, length: int, model: ModelConfig, max_model_len: int, scheduler: Scheduler
) -> tuple[int, frozenset[int]]:
    """How long a sequence of `length` known tokens may grow, and which ids end it.

    ``max_tokens=None`` means: as far as the context and the KV pool reach.

    Raises:
        PromptTooLongError, PoolTooSmallError, RequestError: as for `check_request`.
    """
    if model.head == "none" and params.max_tokens != 0:
        raise RequestError(f"this {model.architecture} gives vectors and no tokens: it can embed texts and write none")
    if model.head != "vocabulary" and (params.max_tokens != 0 or params.prompt_logprobs is not None):
        raise RequestError(
            f"this {model.architecture} gives labels and no tokens: it can score answers and not write any "
            "(give it as a reward model)"
        )
    room_needed = 0 if params.max_tokens == 0 else 1
    if length + room_needed > max_model_len:
        raise PromptTooLongError(
            f"the prompt has {length:,} tokens and the context is {max_model_len:,}: shorten it by "
            f"{length + room_needed - max_model_len:,}, or load with a larger max_model_len if the model's own context "
            f"({model.max_model_len:,}) allows"
        )
    pool_tokens = scheduler.pool.num_usable * scheduler.block_size
    wanted = max_model_len if params.max_tokens is None else min(length + params.max_tokens, max_model_len)
    if params.max_tokens is None and length < pool_tokens:
        wanted = min(wanted, pool_tokens)
    if wanted > pool_tokens:
        raise PoolTooSmallError(
            f"the request may grow to {wanted:,} tokens ({length:,} of prompt) and the KV pool holds {pool_tokens:,}: "
            f"use max_tokens={max(0, pool_tokens - length)} or less, or a larger pool "
            "(num_kv_blocks, gpu_memory_utilization)"
        )
    ends = () if params.ignore_eos else model.eos_token_ids
    return wanted, frozenset((*ends, *params.stop_token_ids))


def new_sequence(
    request: EngineRequest,
    index: int,
    sequence_id: int,
    arrival: int,
    limits: tuple[int, frozenset[int]],
    pooling: Pooling | None = None,
) -> Sequence:
    """The `index`-th sequence of a request that was checked."""
    max_total, stop_ids = limits
    sequence = Sequence(
        id=sequence_id,
        key=request.key.child(request.first_child + index),
        params=request.params,
        tokens=list(request.prompt_ids),
        num_prompt=len(request.prompt_ids),
        arrival=arrival,
        stop_ids=stop_ids,
        max_total=max_total,
        program=request.program,
        priority=request.priority,
        cache_salt=request.cache_salt,
        keep=request.keep,
        score_positions=request.score_positions,
        score_token_ids=request.score_token_ids,
        prompt_logprobs_start=request.prompt_logprobs_start,
        answer_start=len(request.prompt_ids) if request.answer_start is None else request.answer_start,
    )
    read = list(request.score_positions)
    if request.embed:
        assert pooling is not None
        sequence.pooler = Pooler(pooling, len(request.prompt_ids))
        read.append(sequence.pooler.first_needed_row)
    if request.params.prompt_logprobs is not None and len(request.prompt_ids) > 1:
        read.append(max(1, request.prompt_logprobs_start) - 1)
    sequence.first_needed_row = min(read, default=None)
    return sequence


def _check_ids(what: str, ids: Iterable[int], vocab_size: int) -> None:
    for token in ids:
        if not 0 <= token < vocab_size:
            raise RequestError(f"{what} has token id {token}, and the vocabulary has ids 0 to {vocab_size - 1}")
