"""Chat templates: a checkpoint's own Jinja text turns messages into a prompt, inside a sandbox that it cannot leave."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ramify.errors import CheckpointError, ModelError, RequestError
from ramify.sampling import Message

TEMPLATE_FILE = "chat_template.jinja"
TEMPLATE_FOLDER = "additional_chat_templates"
_CONTINUES_HERE = "RAMIFYCONTINUESHERE"


class ChatTemplate:
    """The template of one model.

    Args:
        source: Jinja text.
        special_tokens: names that the template may use, e.g. ``bos_token``, and their texts.
        tools_source: the template for requests with tools, where the model has one of its own.

    Attributes:
        source, tools_source: as given.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str], tools_source: str | None = None) -> None:
        self.source = source
        self.tools_source = tools_source
        self._special_tokens = dict(special_tokens)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **arguments: Any,
    ) -> str:
        """The prompt's text for `messages`.

        Args:
            messages: dicts with ``role`` and ``content`` (text, or OpenAI's list of text parts, joined by line ends).
            add_generation_prompt: end with the header of the assistant's turn.
            continue_final_message: end right after the last message's content, so that the model goes on with it;
                needs ``add_generation_prompt=False``.
            tools: JSON schemas of functions.
            arguments: further names for the template, e.g. ``enable_thinking``.

        Raises:
            RequestError: the template refuses the messages, or cannot end where they end.
            ModelError: the template is no valid Jinja, or tries to leave the sandbox.
        """
        plain = [_plain_message(message) for message in messages]
        if not plain:
            raise RequestError("messages is empty: give at least one message")
        names = {**self._special_tokens, **arguments, "tools": _plain(tools), "add_generation_prompt": False}
        if not continue_final_message:
            return self._render({**names, "messages": plain, "add_generation_prompt": add_generation_prompt})
        if add_generation_prompt:
            raise RequestError(
                "add_generation_prompt starts a new turn and continue_final_message goes on with the last: choose one"
            )
        return self._continue(plain, names)

    def _continue(self, messages: list[dict[str, Any]], names: dict[str, Any]) -> str:
        """Render with a mark after the last content, and cut there: what follows closes the turn."""
        content = messages[-1].get("content")
        if not isinstance(content, str):
            raise RequestError("continue_final_message needs a last message with text content")
        mark = _CONTINUES_HERE
        while any(mark in str(message.get("content")) for message in messages):
            mark += "X"
        marked = [*messages[:-1], {**messages[-1], "content": content + mark}]
        before, found, _ = self._render({**names, "messages": marked}).rpartition(mark)
        if not found or not before.endswith(content):
            raise RequestError(
                "this model's chat template does not keep the last message's text as it is (it strips, moves or drops "
                "part of it), so continue_final_message cannot work on it: strip white space from the message's start, "
                "or give the prompt as text"
            )
        return before

    def _render(self, names: dict[str, Any]) -> str:
        import jinja2

        template = self._with_tools if names["tools"] and self.tools_source else self._plain_template
        try:
            return str(template.render(**names))
        except jinja2.exceptions.SecurityError as error:
            raise ModelError(
                f"the chat template tries to leave its sandbox ({error}): do not trust this model"
            ) from error
        except jinja2.TemplateError as error:
            raise RequestError(
                f"the chat template refused the messages: {error.message or type(error).__name__}"
            ) from error
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            raise RequestError(
                f"the chat template failed on these messages ({type(error).__name__}: {error}): "
                "check that each has a role and text content"
            ) from error

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names that the template asks for, e.g. ``tools`` or ``enable_thinking``; its own are not among them."""
        import jinja2
        from jinja2 import meta

        both = (self.source, self.tools_source or "")
        try:
            return frozenset().union(*(meta.find_undeclared_variables(_environment().parse(text)) for text in both))
        except jinja2.TemplateSyntaxError as error:
            raise _invalid(error) from error

    @cached_property
    def _plain_template(self) -> Any:
        return _compile(self.source)

    @cached_property
    def _with_tools(self) -> Any:
        return _compile(self.tools_source or self.source)


def load_chat_template(
    folder: Path, tokenizer_config: Mapping[str, Any], special_tokens: Mapping[str, str]
) -> ChatTemplate | None:
    """The chat template of a checkpoint: `chat_template.jinja`, else in `tokenizer_config.json`, else None."""
    sources: dict[str, str] = {}
    given = tokenizer_config.get("chat_template")
    if isinstance(given, str):
        sources["default"] = given
    elif isinstance(given, list):
        sources.update({str(entry["name"]): str(entry["template"]) for entry in given if _is_named(entry)})
    elif given is not None:
        raise CheckpointError(
            f"tokenizer_config.json: chat_template is a {type(given).__name__}; it must be text or a list"
        )
    if (folder / TEMPLATE_FILE).is_file():
        sources["default"] = (folder / TEMPLATE_FILE).read_text(encoding="utf-8")
    for path in sorted((folder / TEMPLATE_FOLDER).glob("*.jinja")):
        sources[path.stem] = path.read_text(encoding="utf-8")
    if "default" not in sources:
        return None
    return ChatTemplate(sources["default"], special_tokens, sources.get("tool_use"))


def _is_named(entry: object) -> bool:
    if not isinstance(entry, Mapping) or "name" not in entry or "template" not in entry:
        raise CheckpointError(
            f"tokenizer_config.json: chat_template holds {entry!r}; each entry needs a name and a template"
        )
    return True


def _compile(source: str) -> Any:
    """A template, ready to render."""
    import jinja2

    try:
        return _environment().from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise _invalid(error) from error


def _invalid(error: Any) -> ModelError:
    return ModelError(f"the chat template is not valid Jinja (line {error.lineno}: {error.message})")


@cache
def _environment() -> Any:
    """Jinja's immutable sandbox, with the helpers that the templates of published models use."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
            """Refuse at once; Jinja itself would go on with an empty value."""
            raise jinja2.exceptions.SecurityError(f"access to {attribute!r} of a {type(obj).__name__}")

    class Generation(Extension):
        """``{% generation %}`` marks what a trainer learns from; for a prompt it is only its content."""

        tags = {"generation"}  # noqa: RUF012 - jinja2's own protocol

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it stands; Jinja's own filter would escape it for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)


def _plain_message(message: Message) -> dict[str, Any]:
    """A message as the template may see it: plain data, no entries that are None, text parts joined."""
    if not isinstance(message, Mapping):
        raise RequestError(f"a message is a {type(message).__name__}; it must be a dict with role and content")
    if not isinstance(message.get("role"), str):
        raise RequestError(f"a message has role {message.get('role')!r}; it must be text such as 'user'")
    plain = {str(key): _plain(value) for key, value in message.items() if value is not None}
    if isinstance(plain.get("content"), list):
        plain["content"] = "\n".join(_part_text(part) for part in plain["content"])
    return plain


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise RequestError(f"a message's content has a part of type {kind!r}; the model reads text parts only")


def _plain(value: Any) -> Any:
    """Rebuilt from JSON's own types, so that a template meets no object with methods of its own."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    raise RequestError(
        f"a message or tool holds a {type(value).__name__}; only JSON's types can go to the chat template"
    )
