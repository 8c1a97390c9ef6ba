"""`SamplingParams`, with the names and meanings that vLLM's users know, and the forms a prompt may take."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ramify.errors import SamplingParamsError

TokenIds = tuple[int, ...]
Message = Mapping[str, Any]
"""A chat message: ``{"role": "user", "content": "..."}``."""
Prompt = str | Sequence[int] | Sequence[Message] | Mapping[str, Any]
"""Text, token ids, chat messages, vLLM's ``{"prompt": text}`` / ``{"prompt_token_ids": ids}``, or messages with what
the chat template is told besides: ``{"messages": messages, "template": {"tools": tools}}``."""

MAX_LOGPROBS = 128
"""Alternatives a request may ask for at a position: more would make an answer larger than its prompt's KV."""
MAX_N = 4096
MAX_STOP_STRINGS = 64


@dataclass(frozen=True, slots=True)
class ThinkingMarks:
    """Where thoughts stand in an answer, as token ids. They stand at its start; a mark further on is text.

    Attributes:
        starts: each opens a thought.
        ends: each closes one; the first is what a model is made to write when its budget is spent.
        inside: the prompt ends inside a thought.
    """

    starts: tuple[TokenIds, ...]
    ends: tuple[TokenIds, ...]
    inside: bool = False

    def __post_init__(self) -> None:
        if not self.ends or not all(self.ends) or not all(self.starts):
            raise SamplingParamsError("thinking_marks need at least one end, and no empty mark")


@dataclass(frozen=True, slots=True)
class StructuredOutputsParams:
    """The form that an answer is held to while it is drawn; exactly one of them. Immutable and hashable.

    An answer may end only where its form is complete, and has to end where nothing can follow. Between the parts of a
    JSON text stands nothing, one space, or a line break with at most 32 of indentation: a model cannot ramble there.

    Attributes:
        json: a JSON schema, as a mapping or as text; kept as text.
        json_object: any JSON object.
        regex: a regular expression in the syntax of Rust's regex, for the whole answer.
        choice: the answer is one of these.
        grammar: a context-free grammar with a rule `start` in llguidance's variant of Lark's syntax; or in the EBNF of
            llama.cpp (``root ::= ...``), which is converted.
        structural_tag: free text in which each of some triggers opens a part with a form of its own, as for tool calls:
            ``{"triggers": ["<tool_call>"], "structures": [{"begin": ..., "schema": ..., "end": ...}]}``. A `begin`
            starts with one of the triggers. With ``"at_least_one": true`` the answer has such a part; with
            ``"stop_after_first": true`` it ends behind the first. A mapping or text; kept as text.

    Raises:
        SamplingParamsError: none or several are given, or one is not of its type.
    """

    json: str | Mapping[str, Any] | None = None
    json_object: bool | None = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    structural_tag: str | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        given = self.given
        if len(given) != 1:
            found = " and ".join(given) if given else "none"
            raise SamplingParamsError(f"structured_outputs need exactly one of {', '.join(_FORMS)}; there is {found}")
        for name in ("json", "structural_tag"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _json_text(name, getattr(self, name)))
        for name in ("regex", "grammar"):
            value = getattr(self, name)
            _require(value is None or isinstance(value, str), name, type(value).__name__, "a text")
        if self.choice is not None:
            plain = isinstance(self.choice, Sequence) and not isinstance(self.choice, str) and len(self.choice) > 0
            texts = plain and all(isinstance(text, str) for text in self.choice)
            _require(texts, "choice", type(self.choice).__name__, "a list of one or more texts")
            object.__setattr__(self, "choice", tuple(self.choice))

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the forms that are given."""
        return tuple(name for name in _FORMS if getattr(self, name) not in (None, False))


_FORMS = ("json", "json_object", "regex", "choice", "grammar", "structural_tag")


def _json_text(name: str, value: object) -> str:
    """An object of JSON as text, in the order of its keys; a text is checked and kept as it is."""
    if not isinstance(value, str | Mapping):
        raise SamplingParamsError(f"{name} is a {type(value).__name__}; it must be a JSON object, or its text")
    try:
        if isinstance(value, str):
            if not isinstance(json.loads(value), dict):
                raise SamplingParamsError(f"{name} is no JSON object: give one, as it is or as text")
            return value
        return json.dumps(value)
    except RecursionError:
        raise SamplingParamsError(f"{name} is nested too deeply: use fewer levels, or $ref") from None
    except (TypeError, ValueError) as error:
        if isinstance(error, SamplingParamsError):
            raise
        raise SamplingParamsError(f"{name} is no JSON ({error}): give an object or its text") from None


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the tokens of a request are drawn and where it ends. Immutable; validated when made.

    Attributes:
        n: how many independent continuations of the prompt to draw (forks of one prefill).
        temperature: 0 is greedy.
        top_p, top_k, min_p, typical_p: truncations, applied to the distribution after temperature; 1, 0 (or -1), 0
            and 1 switch them off. typical_p is locally typical sampling (arXiv:2202.00666), min_p arXiv:2407.01082.
        repetition_penalty: over prompt and output (1 is off; arXiv:1909.05858).
        presence_penalty, frequency_penalty: over the output, as in the OpenAI API (0 is off).
        logit_bias: token id -> number added to its logit.
        allowed_token_ids: if given, nothing else can be drawn.
        seed: the draws are a function of (seed, branch index, position); None means that
            the engine's own seed and the request's number are used, so that a run as a whole can be repeated.
        stop: strings that end a continuation; searched across token boundaries.
        stop_token_ids: ids that end a continuation, besides the model's end-of-sequence ids.
        include_stop_str_in_output: keep the stop string (and a stop token's text) in the output.
        ignore_eos: go on past the end-of-sequence ids.
        max_tokens: tokens to draw at most; None means up to the context's end.
        min_tokens: no end-of-sequence or stop token may be drawn before this many, and no stop string is honoured.
        logprobs: log-probabilities of the drawn token and of this many most likely ones, from the model's own
            distribution (before temperature, penalties and truncation). 0 gives the drawn token's alone.
        prompt_logprobs: the same for the prompt's tokens.
        structured_outputs: the form that the answer is held to. What a model thinks (see `thinking_marks`) is free.
        thinking_token_budget: tokens of thought at most; the mark that ends it is then forced. Needs `thinking_marks`.
        thinking_marks: where the model's thoughts stand; given by whoever knows its text.
        skip_special_tokens: leave special tokens out of the text.
        detokenize: False gives token ids only (and so allows no stop strings).

    Raises:
        SamplingParamsError: a field is out of its range.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    seed: int | None = None
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    structured_outputs: StructuredOutputsParams | None = None
    thinking_token_budget: int | None = None
    thinking_marks: ThinkingMarks | None = None
    skip_special_tokens: bool = True
    detokenize: bool = True
    stop_strings: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        given = self.stop
        object.__setattr__(self, "stop_strings", (given,) if isinstance(given, str) else tuple(given or ()))
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids or ()))
        self._check_numbers()
        self._check_stops()
        self._check_form()

    def _check_numbers(self) -> None:
        _require(_is_int(self.n) and 1 <= self.n <= MAX_N, "n", self.n, f"an integer from 1 to {MAX_N}")
        _require(_in(self.temperature, 0, math.inf), "temperature", self.temperature, "a finite number, 0 or more")
        _require(_in(self.top_p, 0, 1) and self.top_p > 0, "top_p", self.top_p, "in (0, 1]")
        _require(_is_int(self.top_k) and self.top_k >= -1, "top_k", self.top_k, "-1, 0 (both off) or more")
        _require(_in(self.min_p, 0, 1), "min_p", self.min_p, "in [0, 1]")
        _require(_in(self.typical_p, 0, 1) and self.typical_p > 0, "typical_p", self.typical_p, "in (0, 1]")
        penalty = self.repetition_penalty
        _require(_in(penalty, 0, math.inf) and penalty > 0, "repetition_penalty", penalty, "above 0")
        _require(_in(self.presence_penalty, -2, 2), "presence_penalty", self.presence_penalty, "in [-2, 2]")
        _require(_in(self.frequency_penalty, -2, 2), "frequency_penalty", self.frequency_penalty, "in [-2, 2]")
        if self.max_tokens is not None:
            _require(_is_int(self.max_tokens) and self.max_tokens >= 0, "max_tokens", self.max_tokens, "0 or more")
        _require(_is_int(self.min_tokens) and self.min_tokens >= 0, "min_tokens", self.min_tokens, "0 or more")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise SamplingParamsError(f"min_tokens={self.min_tokens} is more than max_tokens={self.max_tokens}")
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            in_range = value is None or (_is_int(value) and 0 <= value <= MAX_LOGPROBS)
            _require(in_range, name, value, f"None or 0 to {MAX_LOGPROBS}")
        if self.seed is not None:
            _require(_is_int(self.seed), "seed", self.seed, "an integer")
        for token, bias in (self.logit_bias or {}).items():
            _require(_in(bias, -1e9, 1e9), f"logit_bias[{token}]", bias, "a finite number")
        if self.allowed_token_ids is not None:
            _require(len(self.allowed_token_ids) > 0, "allowed_token_ids", self.allowed_token_ids, "not empty")

    def _check_stops(self) -> None:
        stops = self.stop_strings
        _require(len(stops) <= MAX_STOP_STRINGS, "stop", f"{len(stops)} strings", f"at most {MAX_STOP_STRINGS}")
        for text in stops:
            _require(isinstance(text, str) and text != "", "stop", text, "non-empty strings")
        if stops and not self.detokenize:
            raise SamplingParamsError("stop strings need text: use detokenize=True, or stop_token_ids")

    def _check_form(self) -> None:
        budget, form = self.thinking_token_budget, self.structured_outputs
        if form is not None and not isinstance(form, StructuredOutputsParams):
            raise SamplingParamsError(f"structured_outputs is a {type(form).__name__}: give StructuredOutputsParams")
        if form is not None and self.ignore_eos:
            raise SamplingParamsError("structured_outputs end an answer where it is complete: leave ignore_eos out")
        if budget is not None:
            _require(_is_int(budget) and budget >= 0, "thinking_token_budget", budget, "0 or more")
            if self.thinking_marks is None:
                raise SamplingParamsError(
                    "thinking_token_budget without thinking_marks: give the marks of the model's thoughts; a model "
                    "that marks none cannot be limited"
                )

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken each time."""
        return self.temperature == 0

    def with_(self, **changes: Any) -> SamplingParams:
        """A copy with some fields changed; itself where they are what they were."""
        if all(getattr(self, name, _NOTHING) is value for name, value in changes.items()):
            return self
        return replace(self, **changes)


_NOTHING = object()


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _in(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and low <= value <= high


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise SamplingParamsError(f"{name}={value!r} does not work: it must be {wanted}")
