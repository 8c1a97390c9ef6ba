"""Where tokens come from: one protocol, and its implementations (the local engine, the enumerable toy model)."""
