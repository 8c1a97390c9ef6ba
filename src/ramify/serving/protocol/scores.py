"""The requests of ``/v1/score`` and ``/v1/rerank``, as vLLM has them, and of conversations for reward models."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ramify.errors import RequestError
from ramify.serving.protocol.api_model import ApiModel
from ramify.serving.protocol.base import MAX_TOKEN_IDS
from ramify.serving.protocol.chat import MAX_MESSAGES, ChatMessage
from ramify.serving.protocol.embeddings import ScoringFields

Texts = str | Annotated[list[str], Field(min_length=1, max_length=MAX_TOKEN_IDS, fail_fast=True)]
Conversation = Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
_NAMES = (("text_1", "text_2"), ("queries", "documents"))


class ScoreRequest(ScoringFields):
    """Scores of pairs of texts, or of conversations."""

    text_1: Texts | None = Field(None, description="What is asked: one for all of text_2, or one each.")
    text_2: Texts | None = Field(None, description="What is scored.")
    queries: Texts | None = Field(None, description="Another name of text_1.")
    documents: Texts | None = Field(None, description="Another name of text_2.")
    messages: Conversation | None = Field(None, description="Instead: the last message, the assistant's, is scored.")
    conversations: Annotated[list[Conversation], Field(min_length=1, max_length=MAX_TOKEN_IDS)] | None = Field(
        None, description="Several of those."
    )

    def pairs(self) -> list[tuple[str, str]]:
        """What is asked and what is scored; none where there are conversations.

        Raises:
            RequestError: none or several of the forms are given, or the lists do not fit each other.
        """
        given = [names for names in _NAMES if any(getattr(self, name) is not None for name in names)]
        talks = [name for name in ("messages", "conversations") if getattr(self, name) is not None]
        if len(given) + len(talks) != 1:
            raise RequestError("give text_1 and text_2, or queries and documents, or messages, or conversations")
        if talks:
            return []
        first, second = (_several(getattr(self, name)) for name in given[0])
        if not first or not second:
            raise RequestError(f"give both {' and '.join(given[0])}")
        if len(first) not in (1, len(second)):
            names = f"{given[0][0]} has {len(first)} texts and {given[0][1]} has {len(second)}"
            raise RequestError(f"{names}: give one for all, or as many")
        return list(zip(first * (len(second) // len(first)), second, strict=True))

    def talks(self) -> list[list[ChatMessage]]:
        """The conversations that are given."""
        return [self.messages] if self.messages is not None else list(self.conversations or ())


class TextDocument(ApiModel):
    """A document as an object."""

    text: str


class RerankRequest(ScoringFields):
    """The documents that answer a query best, in order."""

    query: str
    documents: Annotated[list[str | TextDocument], Field(min_length=1, max_length=MAX_TOKEN_IDS, fail_fast=True)]
    top_n: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(None, description="Give so many; 0 is all.")
    return_documents: bool | None = Field(None, description="Repeat each document's text (default).")

    def texts(self) -> list[str]:
        """The documents' texts."""
        return [each if isinstance(each, str) else each.text for each in self.documents]


def _several(texts: Texts | None) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts or ())
