"""`RewardHead`: where and how a reward model's scores are read; from `config.json` where it says so, else told.

Three forms of process reward models are published: two classes at the end of a step, the logits of two tokens there, or
one value a token. An outcome reward model has one or more labels at the last token. What a checkpoint does not say of
itself is asked for by name, never guessed: another token or label would be another score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from ramify.errors import ConfigError, RequestError

HeadKind = Literal["vocabulary", "token", "sequence", "value", "none"]
"""What stands on the last layer: token logits; labels of a token; labels of a text; one value beside the token logits
(the ``v_head`` of TRL and Skywork); or nothing, where vectors are all it gives."""
RewardKind = Literal["prm", "orm"]
VALUE_HEAD = "v_head.summary"
_GOOD_LABELS = frozenset({"good", "correct", "positive", "true", "right", "valid", "yes", "+"})


@dataclass(frozen=True, slots=True)
class RewardHead:
    """How scores are read. What is None was not said.

    Attributes:
        step_token: text that ends a step of an answer.
        good_token, bad_token: the softmax of these two tokens' logits gives the probability of being good.
        good_label: which of several labels means good; their softmax gives the probability.
        mark: token that the model wants behind each step and is read at; it is put into what the model reads. Without
            one, the step's own last token is read.
        kind: "prm" reads at the end of each step, "orm" at the last token only.
    """

    step_token: str | None = None
    good_token: str | None = None
    bad_token: str | None = None
    good_label: int | None = None
    mark: str | None = None
    kind: RewardKind | None = None

    def over(self, other: RewardHead | None) -> RewardHead:
        """This, and what `other` says where this says nothing."""
        if other is None:
            return self
        return replace(other, **{name: value for name, value in _entries(self).items() if value is not None})

    @property
    def reads_tokens(self) -> bool:
        """Whether it is read from the logits of two tokens."""
        return self.good_token is not None


def parse_reward_head(given: Mapping[str, Any], where: str) -> RewardHead:
    """Read options such as ``{"kind": "prm", "step_token": "\\n"}``.

    Raises:
        ConfigError: an option is unknown or cannot work.
    """
    known = [field.name for field in fields(RewardHead)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(f"{where}: {unknown[0]!r} is no option of a reward model: choose from {', '.join(known)}")
    said = {name: value for name, value in given.items() if value is not None}
    for name, value in said.items():
        if name == "good_label":
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ConfigError(f"{where}: good_label={value!r}; it must be the number of a label, from 0")
        elif not isinstance(value, str) or not value:
            raise ConfigError(f"{where}: {name}={value!r}; it must be a text")
    if said.get("kind", "prm") not in ("prm", "orm"):
        raise ConfigError(f'{where}: kind={said["kind"]!r}; it must be "prm" (each step) or "orm" (the whole answer)')
    if ("good_token" in said) != ("bad_token" in said):
        missing = "bad_token" if "good_token" in said else "good_token"
        raise ConfigError(f"{where} names no {missing}: the two are compared with each other")
    return RewardHead(**said)


def complete_reward_head(
    name: str, said: RewardHead, head: HeadKind, labels: Sequence[str], has_value_head: bool
) -> tuple[RewardHead, HeadKind]:
    """What is said of a reward model, made whole from its architecture.

    Args:
        name: of the model, for messages.
        said: by the user, and by `config.json`.
        head: of its architecture.
        labels: names of the head's labels.
        has_value_head: whether the checkpoint holds a value head.

    Returns:
        The reward head, and the head that has to be loaded.

    Raises:
        RequestError: it is no reward model.
        ConfigError: something is missing; says what to give.
    """
    if head == "vocabulary" and not said.reads_tokens:
        if not has_value_head:
            raise RequestError(
                f"{name} is no reward model that is known by itself: it has neither labels nor a value head. "
                f"If it scores with two tokens, {_remedy(name, step_token='...', good_token='+', bad_token='-')}"
            )
        head, labels = "value", ("value",)
    kind: RewardKind = said.kind or ("orm" if head == "sequence" else "prm")
    if kind == "prm" and said.step_token is None:
        raise ConfigError(
            f"reward model {name} does not say where a step ends: {_remedy(name, step_token='...')}, the text that "
            "ended its steps in training (and mark, if a token of its own stood behind each)"
        )
    good_label = said.good_label
    if head != "vocabulary":
        good_label = _good_label(name, good_label, labels)
    elif good_label is not None:
        raise ConfigError(f"reward model {name} has tokens and no labels: leave good_label out")
    return replace(said, kind=kind, good_label=good_label), head


def _good_label(name: str, said: int | None, labels: Sequence[str]) -> int | None:
    if said is not None:
        if said >= len(labels) or len(labels) == 1:
            raise ConfigError(f"reward model {name} has {len(labels)} label(s): good_label={said} does not work")
        return said
    if len(labels) == 1:
        return None
    named = [index for index, label in enumerate(labels) if label.lower() in _GOOD_LABELS]
    if len(named) != 1:
        raise ConfigError(
            f"reward model {name} does not say which of its labels {', '.join(labels)} means good: "
            f"{_remedy(name, good_label=1)}, the number of that label from 0"
        )
    return named[0]


def _remedy(name: str, **options: str | int) -> str:
    return f'give reward_models={{{name!r}: {options}}}, or put the same as "ramify" into its config.json'


def _entries(head: RewardHead) -> dict[str, Any]:
    return {field.name: getattr(head, field.name) for field in fields(head)}
