"""`LLM`: a model in the caller's process, on the caller's thread. Batches in, outputs in the order of the prompts."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ramify.config import EngineConfig
from ramify.engine.core import EngineCore
from ramify.engine.loading import load_engine
from ramify.engine.outputs import RequestOutput
from ramify.engine.request import EngineRequest
from ramify.engine.requests import RunningRequest
from ramify.errors import EngineError, RequestError
from ramify.randomness import BranchKey
from ramify.sampling import Message, Prompt, SamplingParams, TokenIds
from ramify.text.tokenizer import Tokenizer, load_tokenizer


class OfflineLLM:
    """An engine with text in front.

    Args:
        model: a bundled name ("nano", "nano-drafter", "nano-prm"), a checkpoint's folder, or a hub id.
        tokenizer: another folder to take the tokenizer from.
        engine_options: fields of `EngineConfig`.

    Raises:
        ModelNotFoundError, UnsupportedModelError, CheckpointError, ConfigError: see `load_engine`.
    """

    def __init__(
        self, model: str | os.PathLike[str], *, tokenizer: str | os.PathLike[str] | None = None, **engine_options: Any
    ) -> None:
        from pathlib import Path

        self.model = os.fspath(model)
        self.config = EngineConfig.from_options(engine_options)
        core, folder = load_engine(model, self.config)
        self._core: EngineCore | None = core
        self.tokenizer: Tokenizer = load_tokenizer(Path(tokenizer) if tokenizer is not None else folder)
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give weights and KV back. The object can't be used afterwards."""
        self._core = None

    @property
    def core(self) -> EngineCore:
        """The engine itself.

        Raises:
            EngineError: it was closed.
        """
        if self._core is None:
            raise EngineError("this LLM was closed: make a new one")
        return self._core

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self.tokenizer

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Continue prompts.

        Args:
            prompts: one or several: text, token ids, ``{"prompt": text}`` or ``{"prompt_token_ids": ids}``.
            sampling_params: one for all, or one a prompt; the default is `SamplingParams()`.
            use_tqdm: show a progress bar.

        Returns:
            One output a prompt, in order.

        Raises:
            RequestError: a prompt cannot be served; nothing has run then.
            EngineError: a request failed while it ran; the others were finished first.
        """
        several = _several(prompts)
        settings = _one_each(sampling_params, len(several))
        ids = [self.tokenizer.prompt_ids(prompt) for prompt in several]
        return self._run(ids, [_text(prompt) for prompt in several], settings, use_tqdm)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> list[RequestOutput]:
        """Answer one conversation, or several, through the model's chat template.

        Args:
            messages: ``[{"role": "user", "content": "..."}]``, or a list of such lists.
            sampling_params, use_tqdm: as for `generate`.
            add_generation_prompt: open the assistant's turn.
            continue_final_message: go on inside the last message (then pass ``add_generation_prompt=False``).
        """
        conversations: Any = [messages] if messages and not isinstance(messages[0], Sequence) else messages
        settings = _one_each(sampling_params, len(conversations))
        texts = [
            self.tokenizer.apply_chat_template(
                conversation,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
            )
            for conversation in conversations
        ]
        ids = [self.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        return self._run(ids, texts, settings, use_tqdm)

    def logprobs(
        self, prompts: Prompt | Sequence[Prompt], continuations: str | TokenIds | Sequence[str | TokenIds]
    ) -> list[npt.NDArray[np.float64]]:
        """Log-probabilities of given continuations, each after its prompt: one forward pass, nothing is drawn.

        Args:
            prompts: one for all continuations, or one each.
            continuations: text (encoded without special tokens) or token ids.

        Returns:
            One array a continuation: the natural log-probability of each of its tokens.
        """
        wanted: list[Any] = (
            [continuations] if isinstance(continuations, str) or _is_ids(continuations) else [*continuations]
        )
        several = _several(prompts)
        if len(several) == 1:
            several = several * len(wanted)
        if len(several) != len(wanted):
            raise RequestError(f"{len(several)} prompts and {len(wanted)} continuations: give one prompt, or one each")
        requests = []
        for prompt, continuation in zip(several, wanted, strict=True):
            head = self.tokenizer.prompt_ids(prompt)
            is_text = isinstance(continuation, str)
            tail = self.tokenizer.encode(continuation, add_special_tokens=False) if is_text else tuple(continuation)
            if not tail:
                raise RequestError("a continuation is empty: there is nothing to score")
            params = SamplingParams(max_tokens=0, prompt_logprobs=0, detokenize=False)
            requests.append(EngineRequest(head + tail, params, self._key(None), prompt_logprobs_start=len(head)))
        return self._score(requests)

    def _score(self, requests: Sequence[EngineRequest]) -> list[npt.NDArray[np.float64]]:
        places = {self.core.add(request)[0]: place for place, request in enumerate(requests)}
        scores: list[npt.NDArray[np.float64]] = [np.empty(0)] * len(requests)
        errors = []
        while self.core.has_work():
            for output in self.core.step().outputs:
                if output.error is not None:
                    errors.append(output.error)
                elif output.prompt_logprobs is not None:
                    entries = [entry.logprob for entry in output.prompt_logprobs if entry is not None]
                    scores[places[output.sequence_id]] = np.array(entries)
        if errors:
            raise errors[0]
        return scores

    def _run(
        self, ids: Sequence[TokenIds], texts: Sequence[str | None], settings: Sequence[SamplingParams], use_tqdm: bool
    ) -> list[RequestOutput]:
        running: list[RunningRequest] = []
        of_sequence: dict[int, RunningRequest] = {}
        self.core.read_forms(params.structured_outputs for params in settings)
        try:
            for prompt_ids, text, params in zip(ids, texts, settings, strict=True):
                sequence_ids = self.core.add(EngineRequest(prompt_ids, params, self._key(params.seed)))
                request_id = str(next(self._numbers))
                request = RunningRequest(request_id, text, prompt_ids, params, sequence_ids, self.tokenizer)
                running.append(request)
                of_sequence.update(dict.fromkeys(sequence_ids, request))
            with tqdm(total=len(running), desc="requests", disable=not use_tqdm, dynamic_ncols=True) as bar:
                while self.core.has_work():
                    self._step(of_sequence, bar)
        except BaseException:
            self.core.drop(list(of_sequence))
            raise
        failed = next((request.error for request in running if request.error is not None), None)
        if failed is not None:
            raise failed
        return [request.output for request in running]

    def _step(self, of_sequence: dict[int, RunningRequest], bar: Any) -> None:
        for news in self.core.step().outputs:
            request = of_sequence.get(news.sequence_id)
            if request is None:
                continue
            if request.push(news):
                self.core.finish(news.sequence_id)
            if request.output.finished:
                bar.update(1)

    def _key(self, seed: int | None) -> BranchKey:
        """A request's draws hash its own seed, or else the engine's seed and the request's number."""
        if seed is not None:
            return BranchKey.root(seed)
        return BranchKey.root(self.config.seed, f"request {next(self._numbers)}")


def _is_ids(value: Any) -> bool:
    return not isinstance(value, str) and len(value) > 0 and isinstance(value[0], int | np.integer)


def _several(prompts: Any) -> list[Any]:
    """A single prompt becomes a list of one."""
    if isinstance(prompts, str | dict) or _is_ids(prompts):
        return [prompts]
    if not isinstance(prompts, Iterable):
        raise RequestError(
            f"prompts of type {type(prompts).__name__} do not work: give text, ids, dicts or a list of them"
        )
    return list(prompts)


def _one_each(
    sampling_params: SamplingParams | Sequence[SamplingParams] | None, count: int
) -> Sequence[SamplingParams]:
    if sampling_params is None:
        return [SamplingParams()] * count
    if isinstance(sampling_params, SamplingParams):
        return [sampling_params] * count
    if len(sampling_params) != count:
        raise RequestError(f"{len(sampling_params)} sampling_params for {count} prompts: give one, or one each")
    return sampling_params


def _text(prompt: Any) -> str | None:
    if isinstance(prompt, dict):
        prompt = prompt.get("prompt")
    return prompt if isinstance(prompt, str) else None
