"""Token-level constraints: which token may come next, and where an answer may end."""

from ramify.text.constraints.base import AllOf, BoolArray, Constraint, NextTokens, bind
from ramify.text.constraints.compiled import CompiledGrammar, Follower, deep_thread, prepare_vocabulary
from ramify.text.constraints.forbidden import Forbidden
from ramify.text.constraints.forms import compile_form
from ramify.text.constraints.grammar import Grammar, JsonSchema, Regex
from ramify.text.constraints.lengths import AllowedIds, Length
from ramify.text.constraints.vocabulary import Vocabulary

__all__ = [
    "AllOf",
    "AllowedIds",
    "BoolArray",
    "CompiledGrammar",
    "Constraint",
    "Follower",
    "Forbidden",
    "Grammar",
    "JsonSchema",
    "Length",
    "NextTokens",
    "Regex",
    "Vocabulary",
    "bind",
    "compile_form",
    "deep_thread",
    "prepare_vocabulary",
]
