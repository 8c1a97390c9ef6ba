"""Exceptions of ramify: one class per thing a caller can do about it; messages name the value and the remedy."""


class RamifyError(Exception):
    """Base of every error that ramify raises on purpose."""


class ConfigError(RamifyError, ValueError):
    """An option has a value that cannot work."""


class SamplingParamsError(RamifyError, ValueError):
    """A field of `SamplingParams` is out of its range or contradicts another."""


class ModelError(RamifyError):
    """A checkpoint cannot be used."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """No checkpoint is at the given path or hub id."""


class UnsupportedModelError(ModelError):
    """The checkpoint's architecture, or an option of it, is not one that ramify runs."""


class CheckpointError(ModelError):
    """A tensor is missing or misshapen, or a file of the checkpoint is corrupt."""


class RequestError(RamifyError, ValueError):
    """A request cannot be served as it is; other requests go on."""


class PromptTooLongError(RequestError):
    """The prompt does not fit the model's context."""


class PoolTooSmallError(RequestError):
    """The request could never fit the KV pool, even alone."""


class EngineError(RamifyError):
    """Something went wrong inside the engine while a request ran; `__cause__` holds the original."""


class EngineDiedError(EngineError):
    """The process of an engine ended, and what ran on it is lost; a new one is being started: try again."""


class CapabilityError(RamifyError):
    """A strategy needs something its backend or its scorer does not offer."""


class BudgetExhausted(RamifyError):  # noqa: N818 - a signal to the runtime rather than a fault
    """The next call would pass the budget; the runtime turns it into a valid result."""


class ScorerError(RamifyError):
    """A scorer failed. A failure is never a score."""


class TaskError(RamifyError, ValueError):
    """A task or a record of it cannot be read."""


class StorageError(RamifyError):
    """The server's storage failed, or cannot be used; `__cause__` holds the original."""


class StorageFullError(StorageError):
    """There is no room on the storage's disk; what was stored before is kept."""


class QuotaError(RamifyError):
    """An owner stores as much as it may."""
