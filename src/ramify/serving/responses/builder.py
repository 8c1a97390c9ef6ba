"""`ResponseBuilder`: the deltas of a chat's stream in, the response's items and its typed events out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ramify.serving.responses.items import Item, item_id

Event = dict[str, Any]
_REASONS = {"length": "max_output_tokens"}


class ResponseBuilder:
    """One response while it grows.

    Args:
        response: the object as it is before its answer.

    Attributes:
        response: the object as it is now.
    """

    def __init__(self, response: dict[str, Any]) -> None:
        self.response = response
        self._sequence = 0
        self._open: Item | None = None
        self._texts: list[str] = []  # of the open item
        self._logprobs: list[Any] = []
        self._calls: dict[int, int] = {}  # the chat's number of a call -> place in the output
        self._reason: str | None = None

    def begin(self) -> list[Event]:
        """Its first events."""
        created = self._event("response.created", response=self._snapshot())
        self.response["status"] = "in_progress"
        return [created, self._event("response.in_progress", response=self._snapshot())]

    def queue(self) -> list[Event]:
        """The events of a response that waits in the background."""
        created = self._event("response.created", response=self._snapshot())
        return [created, self._event("response.queued", response=self._snapshot())]

    def start(self) -> list[Event]:
        """A response that waited begins."""
        self.response["status"] = "in_progress"
        return [self._event("response.in_progress", response=self._snapshot())]

    def feed(self, chunk: Mapping[str, Any]) -> list[Event]:
        """The events of a chunk of the chat's stream."""
        events: list[Event] = []
        if chunk.get("usage"):
            self.response["usage"] = _usage(chunk["usage"])
        method = chunk.get("ramify")
        if method is not None and "events" in method:
            events.append(self._event("response.ramify.progress", **method))
        elif method is not None:
            self.response["ramify"] = method
        for choice in chunk["choices"]:
            delta = choice["delta"]
            logprobs = (choice.get("logprobs") or {}).get("content") or []
            if delta.get("reasoning_content"):
                events += self._say("reasoning", delta["reasoning_content"], [])
            if delta.get("content") or (
                logprobs and not delta.get("reasoning_content") and not delta.get("tool_calls")
            ):
                events += self._say("message", delta.get("content") or "", logprobs)
            for call in delta.get("tool_calls") or ():
                events += self._call(call)
            self._reason = choice.get("finish_reason") or self._reason
        return events

    def finish(self) -> list[Event]:
        """The answer is whole: its last events."""
        cut = _REASONS.get(self._reason or "")
        events = [] if self.response["output"] else self._say("message", "", [])  # no words are a message too
        events += self._close("incomplete" if cut else "completed")
        if cut:
            self.response |= {"status": "incomplete", "incomplete_details": {"reason": cut}}
            return [*events, self._event("response.incomplete", response=self._snapshot())]
        self.response |= {"status": "completed", "completed_at": int(time.time())}
        return [*events, self._event("response.completed", response=self._snapshot())]

    def fail(self, code: str, message: str) -> list[Event]:
        """It went wrong: its last event."""
        self._stop()
        self.response |= {"status": "failed", "error": {"code": code, "message": message}}
        return [self._event("response.failed", response=self._snapshot())]

    def cancel(self) -> None:
        """It was cancelled; what is there stays."""
        self._stop()
        self.response["status"] = "cancelled"

    def snapshot(self) -> dict[str, Any]:
        """The object as it is now, what is still growing included."""
        if self._open is not None:
            self._write(self._open)
        return self._snapshot()

    def _stop(self) -> None:
        if self._open is not None:
            self._write(self._open)
            self._open["status"] = "incomplete"
            self._open = None

    def _snapshot(self) -> dict[str, Any]:
        return {**self.response, "output": list(self.response["output"])}

    def _event(self, kind: str, **fields: Any) -> Event:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event

    @property
    def _place(self) -> int:
        return len(self.response["output"]) - 1

    def _say(self, kind: str, text: str, logprobs: list[Any]) -> list[Event]:
        """More of a thought or of the text."""
        events = []
        if self._open is None or self._open["type"] != kind:
            events = self._close("completed") + self._begin(_new_text_item(kind))
            part = _part(kind, "", [])
            events.append(self._of_part("response.content_part.added", part=part))
        self._texts.append(text)
        self._logprobs += logprobs
        if kind == "reasoning":
            return [*events, self._of_part("response.reasoning_text.delta", delta=text)]
        return [*events, self._of_part("response.output_text.delta", delta=text, logprobs=logprobs)]

    def _call(self, call: Mapping[str, Any]) -> list[Event]:
        """More of a call."""
        events = []
        function = call["function"]
        if call["index"] not in self._calls:
            item = {
                "id": item_id("function_call"),
                "type": "function_call",
                "status": "in_progress",
                "call_id": call["id"],
                "name": function["name"],
                "arguments": "",
            }
            events = self._close("completed") + self._begin(item)
            self._calls[call["index"]] = self._place
        if function["arguments"]:
            self._texts.append(function["arguments"])
            events.append(self._of_item("response.function_call_arguments.delta", delta=function["arguments"]))
        return events

    def _begin(self, item: Item) -> list[Event]:
        self._open, self._texts, self._logprobs = item, [], []
        self.response["output"].append(item)
        return [self._event("response.output_item.added", output_index=self._place, item=_copy(item))]

    def _close(self, status: str) -> list[Event]:
        """The open item is whole: its last events."""
        item = self._open
        if item is None:
            return []
        self._write(item)
        item["status"] = status
        text = "".join(self._texts)
        events: list[Event] = []
        if item["type"] == "function_call":
            events.append(self._of_item("response.function_call_arguments.done", name=item["name"], arguments=text))
        else:
            if item["type"] == "reasoning":
                events.append(self._of_part("response.reasoning_text.done", text=text))
            else:
                events.append(self._of_part("response.output_text.done", text=text, logprobs=self._logprobs))
            events.append(self._of_part("response.content_part.done", part=item["content"][0]))
        self._open = None
        return [*events, self._event("response.output_item.done", output_index=self._place, item=_copy(item))]

    def _write(self, item: Item) -> None:
        """What came of the open item, into it."""
        text = "".join(self._texts)
        if item["type"] == "function_call":
            item["arguments"] = text
        else:
            item["content"] = [_part(item["type"], text, self._logprobs)]

    def _of_item(self, kind: str, **fields: Any) -> Event:
        assert self._open is not None
        return self._event(kind, item_id=self._open["id"], output_index=self._place, **fields)

    def _of_part(self, kind: str, **fields: Any) -> Event:
        return self._of_item(kind, content_index=0, **fields)


def _new_text_item(kind: str) -> Item:
    item: Item = {"id": item_id(kind), "type": kind, "status": "in_progress", "content": []}
    return {**item, "summary": []} if kind == "reasoning" else {**item, "role": "assistant"}


def _part(kind: str, text: str, logprobs: list[Any]) -> Item:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


def _copy(item: Item) -> Item:
    return {**item, **({"content": list(item["content"])} if "content" in item else {})}


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Token counts in the names of this API."""
    given, made = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    cached = given.get("cached_tokens", 0)
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {**made, "reasoning_tokens": made.get("reasoning_tokens", 0)},
        "total_tokens": usage["total_tokens"],
    }
