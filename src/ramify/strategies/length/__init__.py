"""How long a model thinks, and an answer at any cut."""
