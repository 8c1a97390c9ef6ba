"""The engine: sequences, scheduler, model runner, sampler, the core that steps them, and the `LLM` classes."""
