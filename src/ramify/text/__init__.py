"""The text floor: tokenizers, chat templates, incremental detokenising, stop strings."""
