"""Batches: files of requests, answered in the background, resumed where a server stopped."""

from ramify.serving.batches.worker import BatchWorker

__all__ = ["BatchWorker"]
