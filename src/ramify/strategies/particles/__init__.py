"""Sampling from the model's law under a reward or a constraint: particle methods."""
