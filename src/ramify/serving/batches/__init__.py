"""Batches: files of requests, answered in the background, resumed where a server stopped."""

from ramify.serving.batches.lines import ENDPOINTS
from ramify.serving.batches.worker import BatchWorker

__all__ = ["ENDPOINTS", "BatchWorker"]
