"""How model families mark their thoughts. A format is a name, the marks that may open a thought and those that end it.

Thoughts stand at the start of an answer, where a template may have opened them already. A mark further on is text:
an answer may talk about the marks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ramify import registry
from ramify.registry import register
from ramify.sampling import ThinkingMarks
from ramify.text.tokenizer import Tokenizer

KIND = "reasoning parser"
_PAGE = "guides/tools.md"


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    """The marks of one family.

    Attributes:
        name: as it is asked for.
        starts: texts that open a thought; the first is the usual one.
        ends: texts that close it.
    """

    name: str
    starts: tuple[str, ...]
    ends: tuple[str, ...]

    def written_by(self, template: str) -> bool:
        """Whether a chat template is of this family."""
        return any(mark in template for mark in (*self.starts, *self.ends))

    def opened_by(self, prompt: str, continued: str = "") -> bool | None:
        """Whether a prompt ends inside a thought; None where the thought is over and none can begin.

        Args:
            prompt: its text, through the chat template.
            continued: text of the assistant's message that the model goes on with. What users write opens nothing.
        """
        if any(prompt.rstrip().endswith(start) for start in self.starts):
            return True
        if continued.strip():
            inside = max(map(continued.rfind, self.starts)) > max(map(continued.rfind, self.ends))
            return inside or None
        return None if any(prompt.rstrip().endswith(end) for end in self.ends) else False

    def marks(self, tokenizer: Tokenizer, inside: bool | None) -> ThinkingMarks:
        """The marks in a tokenizer's ids, for an answer to a prompt that `opened_by` was asked about."""
        starts = () if inside is None else self.starts
        ends = tuple(tokenizer.encode(end, add_special_tokens=False) for end in self.ends)
        opening = tuple(tokenizer.encode(start, add_special_tokens=False) for start in starts)
        return ThinkingMarks(opening, ends, bool(inside))


_THINK = (("<think>",), ("</think>",))


@register("deepseek_r1", kind=KIND, trade="lossless", page=_PAGE)
def deepseek_r1() -> ReasoningFormat:
    """DeepSeek R1 and its distillations: ``<think>`` ... ``</think>``, mostly opened by the template."""
    return ReasoningFormat("deepseek_r1", *_THINK)


@register("qwen3", kind=KIND, trade="lossless", page=_PAGE)
def qwen3() -> ReasoningFormat:
    """Qwen 3, QwQ and whoever else writes ``<think>`` ... ``</think>`` (GLM 4.5, Kimi K2, MiniMax M2, SmolLM 3)."""
    return ReasoningFormat("qwen3", *_THINK)


@register("mistral", kind=KIND, trade="lossless", page=_PAGE)
def mistral() -> ReasoningFormat:
    """Magistral: ``[THINK]`` ... ``[/THINK]``."""
    return ReasoningFormat("mistral", ("[THINK]",), ("[/THINK]",))


@register("granite", kind=KIND, trade="lossless", page=_PAGE)
def granite() -> ReasoningFormat:
    """Granite 3.2: "Here is my thought process:" ... "Here is my response:"."""
    starts = ("Here is my thought process:", "Here's my thought process:")
    return ReasoningFormat("granite", starts, ("Here is my response:", "Here's my response:"))


@register("seed_oss", kind=KIND, trade="lossless", page=_PAGE)
def seed_oss() -> ReasoningFormat:
    """Seed-OSS: ``<seed:think>`` ... ``</seed:think>``."""
    return ReasoningFormat("seed_oss", ("<seed:think>",), ("</seed:think>",))


@register("cohere", kind=KIND, trade="lossless", page=_PAGE)
def cohere() -> ReasoningFormat:
    """Command A Reasoning: ``<|START_THINKING|>`` ... ``<|END_THINKING|>``."""
    return ReasoningFormat("cohere", ("<|START_THINKING|>",), ("<|END_THINKING|>",))


# Most particular first: many templates hold the plain marks as well.
_DETECTED: tuple[Callable[[], ReasoningFormat], ...] = (seed_oss, cohere, mistral, granite, qwen3)


def reasoning_format(name: str) -> ReasoningFormat:
    """The format of a name.

    Raises:
        ConfigError: there is none; names the nearest ones.
    """
    made: ReasoningFormat = registry.build(KIND, name)
    return made


def detect_reasoning(template: str) -> ReasoningFormat | None:
    """The format that a chat template speaks of; None where it knows no thoughts."""
    for make in _DETECTED:
        found = make()
        if found.written_by(template):
            return found
    return None
