"""The trace of a run: typed events in launch order and the tree they describe, as plain data with a JSONL form.

Node numbers are given in launch order, so one seed gives one trace whatever ran first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

FORMAT = 1


class TraceEvent(msgspec.Struct, frozen=True, tag=True):
    """Base of all events."""


class Started(TraceEvent, frozen=True):
    """A run began. `format` is the version of this format: a reader refuses one that it does not know."""

    problem: str
    strategy: str
    seed: int
    prompt: str = ""
    format: int = FORMAT


class Grown(TraceEvent, frozen=True):
    """A branch was drawn: node `node` below `parent`, with its own part of the text."""

    node: int
    parent: int
    text: str
    num_tokens: int
    finish_reason: str | None = None
    logprob: float | None = None
    token_ids: list[int] = []  # msgspec copies an empty default


class Rooted(TraceEvent, frozen=True):
    """The tree of the problem under another model than the main one begins."""

    node: int
    model: str


class Forced(TraceEvent, frozen=True):
    """Known tokens were put behind a branch (behind its first tokens, if it was cut for it): a node of its own."""

    node: int
    parent: int
    text: str
    num_tokens: int
    token_ids: list[int] = []  # msgspec copies an empty default


class Probed(TraceEvent, frozen=True):
    """A short continuation of a fork of `node`, seen and thrown away."""

    node: int
    text: str
    num_tokens: int


class Noted(TraceEvent, frozen=True):
    """A remark for whoever reads the result."""

    text: str


class Scored(TraceEvent, frozen=True):
    """A scorer judged a node."""

    node: int
    scorer: str
    value: float


class Dropped(TraceEvent, frozen=True):
    """Branches were given up and their memory freed."""

    nodes: list[int]


class Cut(TraceEvent, frozen=True):
    """The budget did not admit another token for these branches."""

    nodes: list[int]


class Resampled(TraceEvent, frozen=True):
    """A particle method chose which branches go on: `parents` lists the chosen nodes."""

    nodes: list[int]
    parents: list[int]
    ess: float


class Asked(TraceEvent, frozen=True):
    """A call of a program (critic, judge, planner) and what came back, as node `node` of a tree of its own."""

    purse: str
    text: str
    num_tokens: int
    node: int


class Ran(TraceEvent, frozen=True):
    """The steps of the engine in which a branch was in the batch. Told to listeners and never part of a `Trace`: which
    steps they are depends on what else ran."""

    node: int
    first_step: int
    last_step: int


class Reported(TraceEvent, frozen=True):
    """The best answer so far."""

    best: int
    answer: str | None
    num_candidates: int


class Stopped(TraceEvent, frozen=True):
    """The run ended. `ledger` holds what it cost, as `Ledger.to_dict` gives it."""

    reason: str
    total_tokens: int
    ledger: dict[str, int | float] = {}  # msgspec copies an empty default


AnyEvent = (
    Started
    | Rooted
    | Grown
    | Forced
    | Probed
    | Noted
    | Scored
    | Dropped
    | Cut
    | Resampled
    | Asked
    | Ran
    | Reported
    | Stopped
)
_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


def encode_event(event: AnyEvent) -> bytes:
    """One event as a line of JSON."""
    return _ENCODER.encode(event) + b"\n"


class TraceNode(msgspec.Struct):
    """One node of the search tree.

    Attributes:
        id: its number; 0 is the root.
        parent: its parent's number; None for the root and for answers of a program's calls.
        text: the part of the answer that it added.
        status: "open", "stop", "length", "abort" or "dropped".
        best: whether the chosen answer runs through it.
    """

    id: int
    parent: int | None = None
    text: str = ""
    num_tokens: int = 0
    logprob: float | None = None
    scores: dict[str, float] = {}  # msgspec copies an empty default
    status: str = "open"
    best: bool = False
    children: list[int] = []  # msgspec copies an empty default


@dataclass(slots=True)
class Trace:
    """The events of one run.

    Attributes:
        events: in the order in which the method saw them.
        listener: called with each event as it comes, for progress displays.
    """

    events: list[AnyEvent] = field(default_factory=list)
    listener: Callable[[AnyEvent], None] | None = field(default=None, repr=False)

    def emit(self, event: AnyEvent) -> None:
        """Add an event."""
        self.events.append(event)
        if self.listener is not None:
            self.listener(event)

    def tell(self, event: AnyEvent) -> None:
        """Tell the listener alone."""
        if self.listener is not None:
            self.listener(event)

    def tree(self) -> list[TraceNode]:
        """The search tree; position i holds node i."""
        nodes = [TraceNode(id=0)]
        best: int | None = None
        for event in self.events:
            match event:
                case Grown():
                    nodes.append(_grown(event))
                    nodes[event.parent].children.append(event.node)
                case Rooted():
                    nodes.append(TraceNode(event.node))
                case Forced():
                    added = TraceNode(event.node, event.parent, event.text, event.num_tokens)
                    nodes.append(added)
                    nodes[event.parent].children.append(event.node)
                case Asked():
                    nodes.append(TraceNode(event.node, None, event.text, event.num_tokens, status="stop"))
                case Scored():
                    nodes[event.node].scores[event.scorer] = event.value
                case Dropped():
                    for number in event.nodes:
                        nodes[number].status = "dropped"
                case Cut():
                    for number in event.nodes:
                        nodes[number].status = "length"
                case Reported():
                    best = event.best
        while best is not None:
            nodes[best].best = True
            best = nodes[best].parent
        return nodes

    def to_jsonl(self) -> bytes:
        """One line an event."""
        return b"".join(map(encode_event, self.events))

    @classmethod
    def from_jsonl(cls, lines: bytes | Iterable[bytes]) -> Trace:
        """The trace that `to_jsonl` wrote. Raises `msgspec.ValidationError` for a line that is no event."""
        rows = lines.splitlines() if isinstance(lines, bytes) else lines
        return cls([_DECODER.decode(row) for row in rows if row.strip()])


def _grown(event: Grown) -> TraceNode:
    return TraceNode(
        id=event.node,
        parent=event.parent,
        text=event.text,
        num_tokens=event.num_tokens,
        logprob=event.logprob,
        status=event.finish_reason or "open",
    )
