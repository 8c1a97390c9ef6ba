"""``/v1/responses``: a way to ask the chat endpoint, with conversations that the server keeps."""

from ramify.serving.responses.runs import ResponseRuns

__all__ = ["ResponseRuns"]
