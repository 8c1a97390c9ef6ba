"""Prompts that show a problem and answers to it back to the model (see `ramify.scoring.prompts`)."""

from ramify.scoring.prompts import check_template, fill, question_text

__all__ = ["check_template", "fill", "question_text"]
