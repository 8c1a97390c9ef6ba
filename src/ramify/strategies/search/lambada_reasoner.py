"""The four modules of LAMBADA as short prompts to the model, their replies read strictly (arXiv:2212.13894)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

from ramify.strategies.kernel.context import Context
from ramify.strategies.search.lambada_prover import Verdict

T = TypeVar("T")

FACT_PROMPT = (
    "Facts:\n{facts}\n\nStatement: {goal}\n\n"
    "Do the facts alone say that the statement is true, or that it is false? Answer true, false or unknown."
)
RULES_PROMPT = (
    "Rules:\n{rules}\n\nStatement: {goal}\n\n"
    "Which rules have a conclusion about this statement or its opposite? Answer with their numbers, with commas "
    "between them, or none."
)
SUBGOALS_PROMPT = (
    "Rule: {rule}\nStatement: {goal}\n\n"
    'What does the rule need to be true before it says anything about the statement? Begin each line with "- ", one '
    "condition a line, or answer none."
)
SIGN_PROMPT = (
    "Rule: {rule}\nStatement: {goal}\n\n"
    "Does the rule's conclusion agree with the statement, or contradict it? Answer agree or contradict."
)

MOST_SUBGOALS = 8
LONGEST_SUBGOAL = 300  # characters
_NUMBERS = re.compile(r"[0-9]{1,4}(?: ?, ?[0-9]{1,4})*")
_FACTS: dict[str, Verdict] = {"true": "proved", "false": "disproved", "unknown": "unknown"}
_SIGNS = {"agree": True, "contradict": False}


class AskedReasoner:
    """Asks the model, at temperature 0 unless told otherwise.

    A reply that is not of the form asked for counts as malformed and says nothing: an unknown fact, no rule, a rule
    that does not apply. It never ends a run.

    Args:
        context: of the run; its "program" purse pays.
        max_tokens: of a reply.
        sampling: other options of the replies.
        prompts: templates under "fact", "rules", "subgoals" and "sign" that replace the ones here.
    """

    def __init__(
        self, context: Context, max_tokens: int = 64, temperature: float = 0.0, prompts: dict[str, str] | None = None
    ) -> None:
        given = {"fact": FACT_PROMPT, "rules": RULES_PROMPT, "subgoals": SUBGOALS_PROMPT, "sign": SIGN_PROMPT}
        self._prompts = given | (prompts or {})
        self._context = context
        self._sampling: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature}
        self.malformed = 0

    async def check_fact(self, goal: str, facts: Sequence[str]) -> Verdict:
        """One of true, false, unknown."""
        reply = _word(await self._ask("fact", goal=goal, facts="\n".join(facts)))
        return _FACTS[reply] if reply in _FACTS else self._unread("unknown")

    async def select_rules(self, goal: str, rules: Sequence[str]) -> list[int]:
        """Numbers of the list, or none."""
        shown = "\n".join(f"{number}. {rule}" for number, rule in enumerate(rules, 1))
        reply = _word(await self._ask("rules", goal=goal, rules=shown))
        if reply == "none":
            return []
        chosen = [int(number) - 1 for number in reply.split(",")] if _NUMBERS.fullmatch(reply) else [-1]
        return chosen if all(0 <= i < len(rules) for i in chosen) else self._unread([])

    async def decompose(self, goal: str, rule: str) -> list[str] | None:
        """Lines that begin with a dash, or none."""
        reply = await self._ask("subgoals", goal=goal, rule=rule)
        if _word(reply) == "none":
            return None
        lines = [line.strip() for line in reply.splitlines() if line.strip()]
        subgoals = [line.removeprefix("- ").strip() for line in lines]
        readable = all(line.startswith("- ") and len(line) <= LONGEST_SUBGOAL for line in lines) and all(subgoals)
        return subgoals if readable and 1 <= len(subgoals) <= MOST_SUBGOALS else self._unread(None)

    async def agrees(self, goal: str, rule: str) -> bool | None:
        """Agree or contradict."""
        reply = _word(await self._ask("sign", goal=goal, rule=rule))
        return _SIGNS[reply] if reply in _SIGNS else self._unread(None)

    async def _ask(self, module: str, **parts: str) -> str:
        return (await self._context.ask(self._prompts[module].format(**parts), **self._sampling)).text

    def _unread(self, instead: T) -> T:
        self.malformed += 1
        return instead


def _word(reply: str) -> str:
    """A short reply without case, surrounding space and a full stop."""
    return reply.strip().rstrip(".").strip().casefold()
