"""One file an engine, each behind the same few calls."""
