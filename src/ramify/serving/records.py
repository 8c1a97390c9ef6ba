"""`RequestRecord`: what is known of one request when it ends; what its log line, its metrics and its span are made of.

The record of the request that a task works for is found through a context variable, so that whatever generates on its
behalf, however far below the route, can add to it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from ramify.engine.outputs import RequestOutput


@dataclass(slots=True)
class RequestRecord:
    """One request of a client, or one line of a batch.

    Times are of `time.perf_counter`, except where Unix time is said.

    Attributes:
        request_id: the client's, or made here.
        method, route: such as "POST" and "/v1/chat/completions"; the route as declared, never as called.
        arrived_s: when its first byte came.
        arrived_unix_s: the same as Unix time.
        timeout_s: the client's patience, from the header.
        background: nobody waits for it (a batch).
        caller: name of the key.
        model, strategy: what it ran; None for what runs no model.
        status: of the answer; 499 if the client left before its end.
        finish: why it ended, by continuation.
        code: of the error, for programs.
        prompt_tokens, cached_tokens, generated_tokens: of all its generations.
        queue_s: waited for a slot; of several generations the longest.
        first_token_s, last_token_s: when tokens came from the engine; None without any.
        first_sent_s, last_sent_s: when a stream's first and last generated text were handed to the client's connection;
            None if it is no stream, or had no text.
        ended_s: when the end of the answer was handed to the client's connection; None if it never was.
        prompts, answers: texts, kept only where the log is to hold them.
    """

    request_id: str
    method: str
    route: str
    arrived_s: float = field(default_factory=time.perf_counter)
    arrived_unix_s: float = field(default_factory=time.time)
    timeout_s: float | None = None
    background: bool = False
    caller: str = "anonymous"
    model: str | None = None
    strategy: str | None = None
    status: int = 0
    finish: list[str] = field(default_factory=list)
    code: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    queue_s: float = 0.0
    first_token_s: float | None = None
    last_token_s: float | None = None
    first_sent_s: float | None = None
    last_sent_s: float | None = None
    ended_s: float | None = None
    prompts: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    def add(self, output: RequestOutput) -> None:
        """Count a generation that ended, whole or cut."""
        times = output.metrics.token_times_s
        self.prompt_tokens += len(output.prompt_token_ids)
        self.cached_tokens += output.num_cached_tokens
        self.generated_tokens += sum(len(completion.token_ids) for completion in output.outputs)
        self.finish += [completion.finish_reason or "abort" for completion in output.outputs]
        self.saw_tokens(times)

    @property
    def first_seen_s(self) -> float | None:
        """When the client could have the first text of a stream; of another answer, when its first token came."""
        return self.first_token_s if self.first_sent_s is None else self.first_sent_s

    @property
    def last_seen_s(self) -> float | None:
        """The same of the last."""
        return self.last_token_s if self.last_sent_s is None else self.last_sent_s

    def sent_text(self, now_s: float) -> None:
        """Generated text was handed to the client's connection."""
        self.first_sent_s = now_s if self.first_sent_s is None else self.first_sent_s
        self.last_sent_s = now_s

    def saw_tokens(self, times_s: list[float]) -> None:
        """Tokens came at these times."""
        if times_s:
            self.first_token_s = min(times_s[0], self.first_token_s or times_s[0])
            self.last_token_s = max(times_s[-1], self.last_token_s or times_s[-1])


_current: ContextVar[RequestRecord | None] = ContextVar("ramify_request_record", default=None)


def current_record() -> RequestRecord | None:
    """The record of the request that this task works for; None outside of any."""
    return _current.get()


@contextmanager
def recording(record: RequestRecord) -> Iterator[RequestRecord]:
    """Inside, `record` is the current one, also for tasks that are started here."""
    token = _current.set(record)
    try:
        yield record
    finally:
        _current.reset(token)
