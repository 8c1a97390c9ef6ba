"""`Tokenizer`: text to ids and back, chat templates, and the forms a prompt may take. One backend for all families.

`tokenizer.json` is what defines a tokenizer here, as in transformers, with one difference: transformers 5 builds
the pipeline of class LlamaTokenizer anew instead of reading it, and so drops a text's own leading space. A checkpoint
without the file goes through AutoTokenizer, which converts its older ones (and runs no code of the checkpoint).
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from ramify.errors import CheckpointError, ModelError, RequestError
from ramify.models.values import read_json
from ramify.sampling import Message, Prompt, TokenIds
from ramify.text.chat_template import ChatTemplate, load_chat_template

logger = logging.getLogger(__name__)

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_EXTRA_TOKENS = ("additional_special_tokens", "extra_special_tokens")
_TOKEN_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class Tokenizer:
    """Text to token ids and back.

    Args:
        backend: the `tokenizers` object; truncation and padding are switched off.
        special_tokens: names such as ``eos_token`` and their texts.
        chat_template: None for models without one.
    """

    def __init__(
        self,
        backend: Backend,
        special_tokens: Mapping[str, str] | None = None,
        chat_template: ChatTemplate | None = None,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.special_tokens = dict(special_tokens or {})
        self.chat_template = chat_template
        self.token_text = lru_cache(maxsize=65536)(self._token_text)

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included. The model's may be larger by padding."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    @property
    def bos_token_id(self) -> int | None:
        """Id of the token that starts a text, if there is one."""
        return self._named_id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends a text, if there is one. The model's config may name further ones."""
        return self._named_id("eos_token")

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that `decode` leaves out by default."""
        return frozenset(index for index, token in self.backend.get_added_tokens_decoder().items() if token.special)

    @cached_property
    def byte_ids(self) -> frozenset[int]:
        """Ids of the 256 single-byte tokens of a tokenizer with byte fallback; empty for the others."""
        if "ByteFallback" not in repr(self.backend.decoder):
            return frozenset()
        ids = (self.backend.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
        return frozenset(index for index in ids if index is not None)

    def encode(self, text: str, add_special_tokens: bool = True) -> TokenIds:
        """Ids of `text`, with the start token (or whatever the model's training added) unless told otherwise.

        Raises:
            RequestError: the text is no valid Unicode (a lone surrogate).
        """
        try:
            return tuple(self.backend.encode(text, add_special_tokens=add_special_tokens).ids)
        except TypeError as error:
            if not isinstance(text, str):
                raise RequestError(f"a {type(text).__name__} is no text to encode: give a str") from error
            raise RequestError(
                "the text holds a lone surrogate, which is no valid Unicode: decode it from its bytes anew"
            ) from error

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of `ids`; bytes that are no UTF-8 become U+FFFD, ids beyond the vocabulary nothing."""
        return str(self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def token_id(self, text: str) -> int:
        """The one id that stands for `text`.

        Raises:
            ModelError: it takes none or several.
        """
        index = self.backend.token_to_id(text)
        if index is not None:
            return int(index)
        ids = self.encode(text, add_special_tokens=False)
        if len(ids) != 1:
            raise ModelError(f"{text!r} is {len(ids)} tokens ({list(ids)}) of this tokenizer; it must be one")
        return ids[0]

    def _token_text(self, token_id: int) -> str:
        """Text of one token as it stands inside a text, with its leading space; U+FFFD for part of a character."""
        anchor, length = self._anchor
        return self.decode((*anchor, token_id), skip_special_tokens=False)[length:]

    @cached_property
    def _anchor(self) -> tuple[TokenIds, int]:
        """A token to put first, because decoders strip the space at a text's start; and the length of its text."""
        for letter in ("a", "e", "A", "0"):
            index = self.backend.token_to_id(letter)
            if index is not None:
                return (int(index),), len(self.decode((index,)))
        return (), 0

    def apply_chat_template(self, messages: Sequence[Message], **options: Any) -> str:
        """The prompt's text for `messages`; see `ChatTemplate.render` for the options. It holds its own start token.

        Raises:
            RequestError: the model has no chat template, or its template refuses the messages.
        """
        if self.chat_template is None:
            raise RequestError(
                "this model has no chat template (it is a base model, or the template was not saved with it): give the "
                f"prompt as text, or put a {TOKENIZER_CONFIG_FILE} with a chat_template into its folder"
            )
        return self.chat_template.render(messages, **options)

    def chat_ids(self, messages: Sequence[Message], **options: Any) -> TokenIds:
        """Ids of `apply_chat_template`."""
        return self.encode(self.apply_chat_template(messages, **options), add_special_tokens=False)

    def prompt_ids(self, prompt: Prompt) -> TokenIds:
        """Ids of a prompt in any form: text, ids, messages, ``{"prompt": text}``, ``{"prompt_token_ids": ids}``.

        A conversation with tools or other arguments of the chat template (as `ChatTemplate.render` takes them) is
        ``{"messages": messages, "template": {"tools": tools, ...}}``. Ids that stand beside a text
        or messages are what these were encoded to.

        Raises:
            RequestError: the prompt is empty or of no known form.
        """
        ids = self._prompt_ids(prompt)
        if not ids:
            raise RequestError("the prompt is empty (no token): give at least one")
        return ids

    def _prompt_ids(self, prompt: Any) -> TokenIds:
        if isinstance(prompt, str):
            return self.encode(prompt)
        if isinstance(prompt, Mapping):
            return self._dict_ids(prompt)
        if not hasattr(prompt, "__len__") or not hasattr(prompt, "__getitem__"):
            raise RequestError(f"a prompt of type {type(prompt).__name__} does not work: use text, ids or messages")
        if len(prompt) > 0 and isinstance(prompt[0], Mapping):
            return self.chat_ids(prompt)
        return _as_ids(prompt)

    def _dict_ids(self, prompt: Mapping[str, Any]) -> TokenIds:
        given = {key for key, value in prompt.items() if value is not None}
        rest = given - {"prompt_token_ids"}
        said = rest in ({"prompt"}, {"messages"}, {"messages", "template"})
        if "prompt_token_ids" in given and (said or not rest):
            return _as_ids(prompt["prompt_token_ids"])
        if said and "messages" in rest:
            return self.chat_ids(prompt["messages"], **(prompt.get("template") or {}))
        if said and isinstance(prompt["prompt"], str):
            return self.encode(prompt["prompt"])
        raise RequestError(
            f"a prompt dict with {', '.join(sorted(given)) or 'nothing'} does not work: "
            'use {"prompt": text}, {"prompt_token_ids": ids} or {"messages": messages}'
        )

    def _named_id(self, name: str) -> int | None:
        text = self.special_tokens.get(name)
        index = None if text is None else self.backend.token_to_id(text)
        return None if index is None else int(index)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint's folder, or of a GGUF file.

    Raises:
        CheckpointError: a file of it is corrupt.
        ModelError: there are no files that a tokenizer could be made from.
    """
    if folder.is_file():
        from ramify.text.gguf_tokenizer import load_parts

        return Tokenizer(*load_parts(folder))
    config = _read_config(folder)
    if not (folder / TOKENIZER_FILE).is_file():
        return _convert(folder, config)
    try:
        backend = Backend.from_file(str(folder / TOKENIZER_FILE))
    except Exception as error:  # the library raises plain Exception for a file that it cannot read
        raise CheckpointError(f"{folder / TOKENIZER_FILE} cannot be read ({error}): fetch it again") from error
    named = {name: _token_of(config[name]).content for name in _NAMED_TOKENS if config.get(name) is not None}
    _add_missing(backend, config, named)
    return Tokenizer(backend, named, load_chat_template(folder, config, named))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / TOKENIZER_CONFIG_FILE
    config = read_json(path) if path.is_file() else {}
    special = folder / SPECIAL_TOKENS_FILE
    # As in transformers: the older file counts only where the newer one does not list the added tokens itself.
    if special.is_file() and "added_tokens_decoder" not in config:
        config = {**read_json(special), **{key: value for key, value in config.items() if value is not None}}
    return config


def _token_of(given: Any) -> AddedToken:
    """A token of the config: its text, or an object with the text and its flags."""
    if isinstance(given, str):
        return AddedToken(given, special=True)
    if isinstance(given, Mapping) and isinstance(given.get("content"), str):
        return AddedToken(given["content"], **{flag: given[flag] for flag in _TOKEN_FLAGS if flag in given})
    raise CheckpointError(
        f"tokenizer_config.json: {given!r} is no token; it must be text or an object with its content"
    )


def _add_missing(backend: Backend, config: Mapping[str, Any], named: Mapping[str, str]) -> None:
    """Add the tokens that only `tokenizer_config.json` knows, at the ids it gives them."""
    known = backend.get_added_tokens_decoder()
    listed = config.get("added_tokens_decoder") or {}
    for index, given in sorted((int(key), value) for key, value in listed.items()):
        token = _token_of(given)
        if repr(known.get(index)) != repr(token):
            backend.add_tokens([token])
        if backend.token_to_id(token.content) != index:
            raise CheckpointError(
                f"tokenizer_config.json puts token {token.content!r} at id {index}, tokenizer.json at "
                f"{backend.token_to_id(token.content)}: the two files are not of one model"
            )
    extra = [token for key in _EXTRA_TOKENS for token in _several(config.get(key))]
    for token in [_token_of(config[name]) for name in named] + [_token_of(given) for given in extra]:
        if backend.token_to_id(token.content) is None:
            token.special = True
            backend.add_tokens([token])


def _several(given: Any) -> list[Any]:
    """Extra special tokens: a list, or (in newer files) names and tokens."""
    return list(given.values()) if isinstance(given, Mapping) else list(given or ())


def _convert(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    """Through transformers, for checkpoints with older tokenizer files (sentencepiece, tiktoken, vocab and merges)."""
    from transformers import AutoTokenizer

    logger.warning("%s has no %s: converting its tokenizer through transformers", folder, TOKENIZER_FILE)
    try:
        converted = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        backend = converted.backend_tokenizer
    except Exception as error:  # transformers raises whatever its many converters do
        raise ModelError(
            f"{folder} has no {TOKENIZER_FILE}, and transformers cannot make a fast tokenizer of its other "
            f"files ({error}): fetch tokenizer.json, or `pip install sentencepiece` for a tokenizer.model"
        ) from error
    named = {name: str(text) for name, text in converted.special_tokens_map.items() if isinstance(text, str)}
    return Tokenizer(backend, named, load_chat_template(folder, config, named))


def _as_ids(ids: Sequence[Any]) -> TokenIds:
    try:
        tokens = tuple(operator.index(token) for token in ids)
    except TypeError as error:
        raise RequestError(f"a prompt of token ids holds something that is no integer ({error})") from error
    if any(token < 0 for token in tokens):
        raise RequestError(f"token id {min(tokens)} is negative: ids count from 0")
    return tokens
