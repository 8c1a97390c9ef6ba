"""The server's log: one line a request, as JSON or as text, on standard error. Prompts and answers are never in it
unless the operator asks.

A line holds what a load generator measures from outside, so that one can be checked against the other: when the
request arrived, when its first and last tokens came, when it ended, and how many tokens there were.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from typing import Any, Literal, TextIO

from ramify.serving.records import RequestRecord

LogFormat = Literal["text", "json"]
_REQUEST_LOGGER = "ramify.request"
_VALID_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)
_log = logging.getLogger(__name__)


def request_id(given: str | None) -> str:
    """A client's own id, where it is safe to repeat in headers and log lines, or a new one."""
    return given if given is not None and _VALID_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"


class RequestLog:
    """Writes the line of each request.

    Args:
        with_text: also prompts and answers; said loudly at the start.
    """

    def __init__(self, with_text: bool = False) -> None:
        self.with_text = with_text
        self._logger = logging.getLogger(_REQUEST_LOGGER)
        if with_text:
            _log.warning("prompts and answers are written to the log (log_prompts is on): it holds what users wrote")

    def write(self, record: RequestRecord) -> None:
        """The line of a request that has ended. Probes that went well are worth no line unless debugging."""
        if not self._logger.isEnabledFor(logging.INFO):
            return
        fields = line_of(record, time.perf_counter() if record.ended_s is None else record.ended_s)
        if self.with_text:
            fields |= {"prompts": record.prompts, "answers": record.answers}
        self._logger.info("%s %s %d", record.method, record.route, record.status, extra={"fields": fields})


def line_of(record: RequestRecord, ended_s: float) -> dict[str, Any]:
    """The fields of the line of a request that ended then; what does not apply is left out.

    Times that end in ``_at`` are Unix seconds.
    """

    def at(moment_s: float | None) -> float | None:
        return None if moment_s is None else round(record.arrived_unix_s + moment_s - record.arrived_s, 6)

    first_s = record.first_seen_s
    fields: dict[str, Any] = {
        "request_id": record.request_id,
        "key": record.caller,
        "method": record.method,
        "route": record.route,
        "status": record.status,
        "code": record.code,
        "model": record.model,
        "strategy": record.strategy,
        "background": record.background or None,
        "finish": ",".join(dict.fromkeys(record.finish)) or None,
        "arrived_at": at(record.arrived_s),
        "first_token_at": at(first_s),
        "last_token_at": at(record.last_seen_s),
        "ended_at": at(ended_s),
        "queue_s": round(record.queue_s, 6) if record.model else None,
        "ttft_s": None if first_s is None else round(first_s - record.arrived_s, 6),
        "duration_s": round(ended_s - record.arrived_s, 6),
    }
    if record.model:
        fields |= {
            "prompt_tokens": record.prompt_tokens,
            "cached_tokens": record.cached_tokens,
            "generated_tokens": record.generated_tokens,
        }
    return {name: value for name, value in fields.items() if value is not None}


class _Formatter(logging.Formatter):
    """Both forms; they differ in how a line's fields are joined."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        said = {"time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z"}
        said |= {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        fields: dict[str, Any] = said | getattr(record, "fields", {})
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return self.join(fields)

    def join(self, fields: dict[str, Any]) -> str:
        raise NotImplementedError


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def join(self, fields: dict[str, Any]) -> str:
        """ASCII only, so that no text can break a line or a terminal."""
        return json.dumps(fields, default=str)


class TextFormatter(_Formatter):
    """For people: time, level and message, then ``name=value`` pairs."""

    def join(self, fields: dict[str, Any]) -> str:
        """Values with spaces or controls are quoted as JSON; an exception follows on lines of its own."""
        exception = fields.pop("exception", None)
        head = " ".join(str(fields.pop(name)) for name in ("time", "level"))
        del fields["logger"]
        line = f"{head} {_plain(fields.pop('message'))}"
        line += "".join(f" {name}={_quoted(value)}" for name, value in fields.items())
        return line if exception is None else f"{line}\n{exception}"


def _plain(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if text and text.isprintable() and " " not in text and '"' not in text else json.dumps(value)


def set_up_logging(log_format: LogFormat = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Send the process's log to `stream` (standard error) in one form, uvicorn's own lines included.

    Uvicorn's access log is off: a line of it would say less than ours.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"
