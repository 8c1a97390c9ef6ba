"""The form of an upload: its fields, what they may be, and how the OpenAPI document shows them."""

from __future__ import annotations

from typing import Any

from ramify.errors import RequestError
from ramify.serving.errors import ApiError
from ramify.serving.uploads import FormPiece, clean_filename

PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
"""What a client may say a file is for; only "batch" means something here."""
MIN_RETENTION_S = 3600
MAX_RETENTION_S = 30 * 86_400
_MAX_FIELD_BYTES = 1024
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"
_FIELDS = ("purpose", _ANCHOR, _SECONDS)
UPLOAD_SCHEMA: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(PURPOSES)},
                        _ANCHOR: {"type": "string", "enum": ["created_at"]},
                        _SECONDS: {"type": "integer", "minimum": MIN_RETENTION_S, "maximum": MAX_RETENTION_S},
                    },
                    "additionalProperties": False,
                }
            }
        },
    }
}


class UploadForm:
    """The fields of an upload, as they arrive in any order."""

    def __init__(self) -> None:
        self.filename = ""
        self._fields: dict[str, bytes] = {}
        self._has_file = False

    @property
    def purpose(self) -> str:
        """What the file is for; "" as long as it was not said."""
        return self._fields.get("purpose", b"").decode("utf-8", "replace")

    @property
    def maybe_batch(self) -> bool:
        """Whether the file is a batch's, or may turn out to be."""
        return self.purpose in ("", "batch")

    @property
    def retention_s(self) -> float | None:
        """How long to keep the file; None if the client did not say."""
        return float(self._fields[_SECONDS]) if _SECONDS in self._fields else None

    def take(self, piece: FormPiece) -> bytes:
        """Take a piece of the form; gives what it has of the file.

        Raises:
            ApiError: 400, the form has something else, or something twice.
        """
        if piece.field == "file":
            if piece.kind == "start":
                self._start_file(piece)
            return piece.data
        if piece.field not in _FIELDS:
            raise ApiError(400, f"the form's field {piece.field[:100]!r} is not known", param=piece.field[:100])
        if piece.kind == "start" and piece.field in self._fields:
            raise ApiError(400, f"the form has {piece.field} twice: send it once", param=piece.field)
        value = self._fields.get(piece.field, b"") + piece.data
        if len(value) > _MAX_FIELD_BYTES:
            raise ApiError(400, f"the form's {piece.field} is longer than {_MAX_FIELD_BYTES} bytes", param=piece.field)
        self._fields[piece.field] = value
        if piece.kind == "end" and piece.field == "purpose":
            self._check_purpose()
        return b""

    def check(self) -> None:
        """Raises ApiError: 400, the whole form lacks something or contradicts itself."""
        self._check_purpose()
        if not self._has_file:
            raise ApiError(400, "the form has no file: send one as the field 'file', with a filename", param="file")
        if (_ANCHOR in self._fields) != (_SECONDS in self._fields):
            raise ApiError(400, "expires_after needs both anchor and seconds", param="expires_after")
        if _SECONDS in self._fields:
            self._check_expiry()

    def refuse(self, fault: RequestError | None) -> None:
        """Raises ApiError: 400, the file is a batch's, and is no JSON Lines."""
        if fault is not None and self.purpose == "batch":
            raise ApiError(400, str(fault), param="file", code="invalid_jsonl") from fault

    def _start_file(self, piece: FormPiece) -> None:
        if self._has_file:
            raise ApiError(400, "the form has two files: send one", param="file")
        if piece.filename is None:
            raise ApiError(400, "the form's field 'file' is no file: give its part a filename", param="file")
        self._has_file, self.filename = True, clean_filename(piece.filename)

    def _check_purpose(self) -> None:
        if self.purpose not in PURPOSES:
            message = f"purpose={self.purpose[:100]!r} does not work: use one of {', '.join(PURPOSES)}"
            raise ApiError(400, message, param="purpose")

    def _check_expiry(self) -> None:
        if self._fields[_ANCHOR] != b"created_at":
            raise ApiError(400, "expires_after[anchor] must be 'created_at'", param=_ANCHOR)
        text = self._fields[_SECONDS]
        if not (text.isdigit() and len(text) < 10 and MIN_RETENTION_S <= int(text) <= MAX_RETENTION_S):
            message = f"expires_after[seconds] must be an integer from {MIN_RETENTION_S} to {MAX_RETENTION_S}"
            raise ApiError(400, message, param=_SECONDS)
