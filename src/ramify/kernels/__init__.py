"""Operators: each with a plain torch reference."""
