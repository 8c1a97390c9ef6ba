"""The server: an OpenAI-compatible HTTP API in front of engines, with inference-time methods in every call."""
