"""`Limits`: what one request may ask for at most. What a client can send without a bound of its type has one here."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from ramify.errors import ConfigError


def limit(default: float, text: str) -> Any:
    """A limit with its line of help."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on requests; whatever passes one is refused with its name, the value and the bound.

    The help of each stands with its field. All are positive.

    Raises:
        ConfigError: a limit is not positive.
    """

    max_connections: int = limit(2048, "open connections; further ones get 503")
    max_header_bytes: int = limit(65536, "request line and headers together")
    max_headers: int = limit(100, "headers of a request")
    header_timeout_s: float = limit(10.0, "seconds for a connection to send its headers")
    keep_alive_s: float = limit(30.0, "seconds that an idle connection is kept")
    max_body_bytes: int = limit(16 * 2**20, "body of a request that is not an upload")
    max_upload_bytes: int = limit(512 * 2**20, "body of an upload to /v1/files")
    max_bodies_bytes: int = limit(512 * 2**20, "bodies that are arriving, together; further ones get 503")
    max_json_depth: int = limit(64, "nesting of lists and objects in a body")
    stall_timeout_s: float = limit(60.0, "seconds that a client may leave its answer unread before it is cut off")
    stream_ping_s: float = limit(15.0, "seconds of a stream's silence until a comment is sent to keep it open")
    body_timeout_s: float = limit(30.0, "seconds for a body to arrive, and one more for every 16 KiB received")
    max_messages: int = limit(2048, "messages of a chat, items of a response's input")
    max_inputs: int = limit(2048, "prompts of a completion, also times n; texts to embed; documents to rank")
    max_tokenize: int = limit(2**20, "characters or token ids in a call of /tokenize or /detokenize")
    max_n: int = limit(128, "n and best_of")
    max_logprobs: int = limit(20, "logprobs and top_logprobs of a token")
    max_tokens: int = limit(1_048_576, "tokens of one answer, also bounded by the model's context")
    max_stop: int = limit(16, "stop strings and stop token ids")
    max_stop_bytes: int = limit(1024, "bytes of one stop string")
    max_logit_bias: int = limit(1024, "entries of logit_bias")
    max_tools: int = limit(128, "tools of a request")
    max_tools_bytes: int = limit(256 * 2**10, "their JSON together")
    max_grammar_bytes: int = limit(64 * 2**10, "a schema, regular expression, grammar or list of choices")
    grammar_timeout_s: float = limit(5.0, "seconds to compile one")
    template_timeout_s: float = limit(5.0, "seconds for a chat template to render")
    max_method_tokens: int = limit(1_048_576, "tokens of a method's budget; also the budget of one that names none")
    max_branches: int = limit(256, "n, width and other counts of a method")
    max_metadata: int = limit(16, "entries of metadata")
    max_batch_requests: int = limit(50_000, "lines of a batch")

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if not value > 0:
                raise ConfigError(f"limit {entry.name}={value!r} does not work: it must be more than 0")
