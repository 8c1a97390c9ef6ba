"""Storage: files, batches, responses, traces and keys on SQLite or PostgreSQL, safe against a kill at any moment."""

from ramify.serving.storage.limits import StorageLimits
from ramify.serving.storage.storage import Storage

__all__ = ["Storage", "StorageLimits"]
