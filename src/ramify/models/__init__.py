"""Architectures, their registry, and checkpoints: from a name to weights."""
