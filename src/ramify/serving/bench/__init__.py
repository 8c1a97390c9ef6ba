"""An open-loop load generator for any OpenAI-compatible server: requests come when they are due, whatever it does."""
