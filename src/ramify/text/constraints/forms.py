"""`StructuredOutputsParams` as grammars over a model's vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ramify.errors import ConfigError
from ramify.sampling import StructuredOutputsParams
from ramify.text.constraints.compiled import CompiledGrammar
from ramify.text.constraints.grammar import lark_text, regex_lark
from ramify.text.constraints.vocabulary import Vocabulary

_BETWEEN_JSON = r"( |\n[ \t]{0,32})?"
_GUIDANCE = "x-guidance"
_NAMES = {
    "json": "JSON schema",
    "json_object": "form json_object",
    "regex": "regex",
    "choice": "choice",
    "grammar": "grammar",
    "structural_tag": "structural_tag",
}


def compile_form(form: StructuredOutputsParams, vocabulary: Vocabulary) -> CompiledGrammar:
    """The grammar of an answer's form. Reading it may take a while: use a `deep_thread`.

    Raises:
        ConfigError: it cannot be used; says what of it.
    """
    try:
        lark = _lark_of(form, vocabulary.specials)
    except RecursionError:
        raise ConfigError(f"the {_NAMES[form.given[0]]} is nested too deeply: use fewer levels") from None
    return CompiledGrammar(lark, vocabulary, _NAMES[form.given[0]])


def _lark_of(form: StructuredOutputsParams, specials: Mapping[str, int]) -> str:
    if form.json is not None:
        return f"start: {_json_part(json.loads(str(form.json)))}"
    if form.regex is not None:
        return regex_lark(form.regex)
    if form.choice is not None:
        return f"start: /{'|'.join(map(_escaped, form.choice))}/"
    if form.grammar is not None:
        return form.grammar if "::=" not in form.grammar else _from_ebnf(form.grammar)
    if form.structural_tag is not None:
        return _tagged(json.loads(str(form.structural_tag)), specials)
    return f"start: {_json_part({'type': 'object'})}"


def _json_part(schema: Any) -> str:
    """A JSON value of a schema, with bounded space between its parts unless the schema says otherwise."""
    if isinstance(schema, dict) and _GUIDANCE not in schema:
        schema = {**schema, _GUIDANCE: {"whitespace_pattern": _BETWEEN_JSON}}
    return f"%json {json.dumps(schema)}"


def _escaped(text: str) -> str:
    """A text as a regular expression."""
    plain = (c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)
    return "".join(plain)


def _from_ebnf(grammar: str) -> str:
    from llguidance.gbnf_to_lark import any_to_lark

    try:
        converted: str = any_to_lark(grammar)
    except RecursionError:
        raise
    except Exception as error:  # the converter has classes of its own for some faults and plain ones for others
        raise ConfigError(f"the grammar cannot be used: {error}") from None
    return converted


def _tagged(tag: Mapping[str, Any], specials: Mapping[str, int]) -> str:
    """Free text in which triggers open parts with forms of their own; a trigger ends free text wherever it stands."""
    _refuse(set(tag) - {"type", "triggers", "structures", "at_least_one", "stop_after_first"}, "unknown field")
    triggers, structures = tag.get("triggers"), tag.get("structures")
    if not isinstance(triggers, list) or not triggers or not all(isinstance(text, str) and text for text in triggers):
        raise ConfigError('the structural_tag cannot be used: "triggers" must be one or more texts')
    if not isinstance(structures, list) or not structures:
        raise ConfigError('the structural_tag cannot be used: give one or more "structures"')
    rules: dict[str, list[str]] = {}
    for structure in structures:
        trigger, rest = _split(structure, triggers)
        begin, end = lark_text(rest, specials), lark_text(str(structure.get("end", "")), specials)
        rules.setdefault(trigger, []).append(f"{begin} {_json_part(structure['schema'])} {end}")
    lines = ["TEXT: /(?s:.*)/"]
    for number, (trigger, bodies) in enumerate(rules.items()):
        special = trigger in specials
        lines.append(f"trigger_{number}{'' if special else '[lazy]'}: TEXT {lark_text(trigger, specials)}")
        lines.append(f"part_{number}: trigger_{number} ({' | '.join(bodies)})")
    parts = " | ".join(f"part_{number}" for number in range(len(rules)))
    return "\n".join([f"start: {_order(tag, parts)}", "tail: TEXT", *lines])


def _order(tag: Mapping[str, Any], parts: str) -> str:
    needed, single = bool(tag.get("at_least_one")), bool(tag.get("stop_after_first"))
    if single:
        return f"({parts})" if needed else f"({parts}) | tail"
    return f"({parts}){'+' if needed else '*'} tail"


def _split(structure: Any, triggers: list[str]) -> tuple[str, str]:
    """The trigger of a structure, and what of its beginning follows."""
    if not isinstance(structure, dict) or not isinstance(structure.get("begin"), str) or "schema" not in structure:
        raise ConfigError('the structural_tag cannot be used: each structure needs "begin" (a text) and "schema"')
    _refuse(set(structure) - {"begin", "schema", "end"}, "unknown field of a structure")
    found = [trigger for trigger in triggers if structure["begin"].startswith(trigger)]
    if not found:
        raise ConfigError(f"the structural_tag cannot be used: no trigger begins {structure['begin'][:80]!r}")
    return found[0], structure["begin"][len(found[0]) :]


def _refuse(names: set[str], what: str) -> None:
    if names:
        raise ConfigError(f"the structural_tag cannot be used: {what} {min(names)!r}")
