"""Word problems with two to eight arithmetic steps in varied natural wording, one operation a line in the solution.

A problem is either a story (things happen to one person's collection) or a picture (several people's collections and
how they relate, the sentences in any order), or a story that goes on into a picture. The final line marks the
answer as GSM8K does: Cobbe et al., "Training Verifiers to Solve Math Word Problems" (2021).
"""

import random
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from ramify.evals.tasks import wording
from ramify.evals.tasks.arithmetic import Step, make_step, read_step
from ramify.evals.tasks.base import ANSWER_MARK, Split, Task, final_line
from ramify.scoring.problem import Problem

# How often each number of steps is drawn. The test mix is set so that a single sample of the bundled policy is weak.
TRAIN_MIX: Mapping[int, float] = {2: 0.2, 3: 0.18, 4: 0.16, 5: 0.14, 6: 0.12, 7: 0.1, 8: 0.1}
TEST_MIX: Mapping[int, float] = {2: 0.1, 3: 0.1, 4: 0.12, 5: 0.34, 6: 0.14, 7: 0.14, 8: 0.06}
# What the sentences are: events, relations, events and then relations, or relations in any order. Training takes the
# forms as they fall (with five steps 30%, 23%, 23% and 24%); a test draws them by these weights.
FORMS = ("story", "picture", "both", "shuffled")
TEST_FORMS: Mapping[str, float] = {"both": 1.0}
LARGEST = 200
_NUMBER = re.compile(r"-?[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class _Quantity:
    """A number of the problem and the step that computes it (None if the text gives it)."""

    value: int
    step: int | None = None


@dataclass(slots=True)
class _Builder:
    """The problem under construction: its sentences, its steps, and whose collection counts how much."""

    rng: random.Random
    people: list[str]
    things: str
    sentences: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    needs: list[tuple[int, ...]] = field(default_factory=list)
    counts: dict[str, _Quantity] = field(default_factory=dict)
    form: str = ""

    def newcomer(self) -> str:
        return self.people[len(self.counts)]

    def compute(self, left: _Quantity, op: str, right: _Quantity) -> _Quantity:
        self.steps.append(make_step(left.value, op, right.value))
        self.needs.append(tuple(part.step for part in (left, right) if part.step is not None))
        return _Quantity(self.steps[-1].result, len(self.steps) - 1)

    def say(self, templates: Sequence[str], **words: object) -> None:
        self.sentences.append(self.phrase(templates, **words))

    def phrase(self, templates: Sequence[str], **words: object) -> str:
        she = words.get("A") in wording.GIRLS
        pronouns = {"they": "she", "their": "her", "them": "herself"} if she else _HE
        return self.rng.choice(templates).format(things=self.things, **pronouns, **words)


_HE = {"they": "he", "their": "his", "them": "himself"}


class WordProblems(Task):
    """Word problems; `mix` says how often each number of steps is drawn, `forms` each of FORMS (default: by split)."""

    name = "word_problems"

    def __init__(self, mix: Mapping[int, float] | None = None, forms: Mapping[str, float] | None = None) -> None:
        if mix is not None and not all(2 <= steps <= 8 for steps in mix):
            raise ValueError(f"the mix names step counts {sorted(mix)}; each must be between 2 and 8")
        if forms is not None and not set(forms) <= set(FORMS):
            raise ValueError(f"unknown forms {sorted(set(forms) - set(FORMS))}; choose from {', '.join(FORMS)}")
        self._mix = mix
        self._forms = forms

    def draw(self, rng: random.Random, split: Split) -> tuple[Problem, str]:
        mix = self._mix or (TRAIN_MIX if split == "train" else TEST_MIX)
        forms = self._forms or (None if split == "train" else TEST_FORMS)
        wanted = rng.choices(list(mix), list(mix.values()))[0]
        form = rng.choices(list(forms), list(forms.values()))[0] if forms else None
        while True:
            builder = _build(rng, wanted)
            if builder is not None and form in (None, builder.form):
                break
        lines = tuple(map(str, builder.steps))
        answer = str(builder.steps[-1].result)
        metadata = {"steps": lines, "needs": tuple(builder.needs), "form": builder.form}
        return Problem("", " ".join(builder.sentences), answer, self.name, metadata), "; ".join(lines)

    def answer(self, text: str, problem: Problem) -> Hashable | None:
        """Key: the whole number on the marked line."""
        line = final_line(text)
        return int(line) if line is not None and _NUMBER.fullmatch(line) else None

    def correct(self, text: str, problem: Problem) -> bool:
        return problem.answer is not None and self.answer(text, problem) == int(problem.answer)

    def solution(self, problem: Problem) -> str:
        return "\n".join([*problem.metadata["steps"], f"{ANSWER_MARK} {problem.answer}"])

    def step_labels(self, problem: Problem, text: str) -> list[bool]:
        """True while each line is a step of the reference chain whose inputs are known, each step taken once."""
        reference = [step.normal for line in problem.metadata["steps"] if (step := read_step(line)) is not None]
        done: set[int] = set()
        right, finished = True, False
        labels: list[bool] = []
        for line in text.split("\n"):
            if finished:
                right = False
            elif line.startswith(ANSWER_MARK):
                finished = True
                right = right and self.correct(line, problem)
            else:
                taken = _match(read_step(line), reference, problem.metadata["needs"], done)
                right = right and taken is not None
                if taken is not None:
                    done.add(taken)
            labels.append(right)
        return labels


def _match(step: Step | None, reference: list[Step], needs: Sequence[Sequence[int]], done: set[int]) -> int | None:
    """Find the reference step a written step stands for, among those not done whose inputs are done."""
    if step is None:
        return None
    for index, expected in enumerate(reference):
        if index not in done and expected == step.normal and done.issuperset(needs[index]):
            return index
    return None


def _build(rng: random.Random, wanted: int) -> _Builder | None:
    """Build a problem of exactly `wanted` steps; None if the draw runs into a corner: draw again."""
    people = rng.sample(wording.GIRLS + wording.BOYS, 10)
    builder = _Builder(rng, people, rng.choice(wording.THINGS))
    ending = rng.choice((_ask_plain, _ask_plain, _ask_together, _ask_difference, _ask_price, _ask_pack))
    room = wanted - (0 if ending is _ask_plain else 1)
    story = rng.choice((0, room, rng.randint(0, room)))
    _start(builder, room)
    while len(builder.steps) < story:
        if not _event(builder, story - len(builder.steps)):
            return None
    while len(builder.steps) < room:
        if not _relate(builder):
            return None
    builder.form = "picture" if story == 0 else "story" if story == room else "both"
    if story == 0 and rng.random() < 0.5:
        builder.form = "shuffled"
        rng.shuffle(builder.sentences)
    if rng.random() < 0.25:
        _distract(builder)
    last = list(builder.counts)[-1]
    if not ending(builder, last) or len(builder.steps) != wanted:
        return None
    return builder


def _start(builder: _Builder, room: int) -> None:
    rng, name = builder.rng, builder.newcomer()
    if room >= 1 and rng.random() < 0.35:
        m, n = rng.randint(2, 9), rng.randint(2, 12)
        builder.say(wording.START_GROUPS, A=name, m=m, n=n, containers=rng.choice(wording.CONTAINERS))
        builder.counts[name] = builder.compute(_Quantity(m), "*", _Quantity(n))
    else:
        n = rng.randint(3, 60)
        builder.say(wording.START, A=name, n=n)
        builder.counts[name] = _Quantity(n)


def _event(builder: _Builder, room: int) -> bool:
    """Let something happen to the only person's collection."""
    rng, name = builder.rng, builder.people[0]
    now = builder.counts[name]
    kinds = ["gain", "gain", "lose", "lose", "grow", "share", "share"] + ["gain groups", "lose groups"] * (room >= 2)
    kind = rng.choice(kinds)
    if kind in ("gain groups", "lose groups"):
        m, n = rng.randint(2, 6), rng.randint(2, 9)
        op = "+" if kind == "gain groups" else "-"
        if not 1 <= (now.value + m * n if op == "+" else now.value - m * n) <= LARGEST:
            return False
        groups = wording.GAIN_GROUPS if op == "+" else wording.LOSE_GROUPS
        builder.say(groups, A=name, m=m, n=n, containers=rng.choice(wording.CONTAINERS))
        group = builder.compute(_Quantity(m), "*", _Quantity(n))
        builder.counts[name] = builder.compute(now, op, group)
        return True
    op = {"gain": "+", "lose": "-", "grow": "*", "share": "/"}[kind]
    k = _operand(rng, now.value, op)
    if k is None:
        return False
    templates = {"+": wording.GAIN, "-": wording.LOSE, "*": wording.GROW, "/": wording.SHARE}[op]
    builder.say(templates, A=name, k=k, times=wording.TIMES.get(k), fraction=wording.FRACTIONS.get(k))
    builder.counts[name] = builder.compute(now, op, _Quantity(k))
    return True


def _relate(builder: _Builder) -> bool:
    """Bring in one more person whose collection is given by the latest one's, so that every step is needed."""
    rng, known = builder.rng, list(builder.counts)
    new, last = builder.newcomer(), known[-1]
    if len(known) >= 2 and rng.random() < 0.2:
        other = rng.choice(known[:-1])
        first, second = rng.sample((last, other), 2)
        if builder.counts[first].value + builder.counts[second].value > LARGEST:
            return False
        builder.say(wording.SUM, A=first, B=new, C=second)
        builder.counts[new] = builder.compute(builder.counts[first], "+", builder.counts[second])
        return True
    op = rng.choice("++--**//")
    k = _operand(rng, builder.counts[last].value, op)
    if k is None:
        return False
    templates = {"+": wording.MORE, "-": wording.FEWER, "*": wording.MULTIPLE, "/": wording.FRACTION}[op]
    builder.say(templates, A=last, B=new, k=k, times=wording.TIMES.get(k), fraction=wording.FRACTIONS.get(k))
    builder.counts[new] = builder.compute(builder.counts[last], op, _Quantity(k))
    return True


def _operand(rng: random.Random, value: int, op: str) -> int | None:
    """Draw the second number of an operation so that the result stays small and whole; None if there is none."""
    match op:
        case "+":
            return rng.randint(2, min(40, LARGEST - value)) if value <= LARGEST - 2 else None
        case "-":
            return rng.randint(2, min(40, value - 2)) if value >= 4 else None
        case "*":
            factors = [k for k in range(2, 6) if value * k <= LARGEST]
        case _:
            factors = [k for k in range(2, 6) if value % k == 0 and value > k]
    return rng.choice(factors) if factors else None


def _distract(builder: _Builder) -> None:
    """Put a sentence somewhere that has a number but no part in the answer."""
    rng = builder.rng
    other = rng.choice([things for things in wording.THINGS if things != builder.things])
    words = {"A": builder.people[0], "D": builder.people[-1], "n": rng.randint(2, 40), "other": other}
    builder.sentences.insert(rng.randint(1, len(builder.sentences)), builder.phrase(wording.DISTRACT, **words))


def _ask_plain(builder: _Builder, last: str) -> bool:
    builder.say(wording.ASK_NOW if len(builder.counts) == 1 else wording.ASK, A=last)
    return True


def _ask_together(builder: _Builder, last: str) -> bool:
    if len(builder.counts) < 2:
        return False
    first, second = builder.rng.sample((last, builder.rng.choice(list(builder.counts)[:-1])), 2)
    if builder.counts[first].value + builder.counts[second].value > LARGEST:
        return False
    builder.say(wording.ASK_TOGETHER, A=first, B=second)
    builder.compute(builder.counts[first], "+", builder.counts[second])
    return True


def _ask_difference(builder: _Builder, last: str) -> bool:
    if len(builder.counts) < 2:
        return False
    pair = (last, builder.rng.choice(list(builder.counts)[:-1]))
    less, more = sorted(pair, key=lambda name: builder.counts[name].value)
    if builder.counts[less].value == builder.counts[more].value:
        return False
    builder.say(wording.ASK_DIFFERENCE, A=more, B=less)
    builder.compute(builder.counts[more], "-", builder.counts[less])
    return True


def _ask_price(builder: _Builder, last: str) -> bool:
    return _ask_scaled(builder, last, "*", wording.ASK_PRICE)


def _ask_pack(builder: _Builder, last: str) -> bool:
    return _ask_scaled(builder, last, "/", wording.ASK_PACK)


def _ask_scaled(builder: _Builder, last: str, op: str, templates: Sequence[str]) -> bool:
    k = _operand(builder.rng, builder.counts[last].value, op)
    if k is None:
        return False
    builder.say(templates, A=last, k=k)
    builder.compute(builder.counts[last], op, _Quantity(k))
    return True
