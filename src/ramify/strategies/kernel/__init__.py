"""What every method stands on: the context, the purse, the ledger, the trace, and the runtime that runs a strategy."""
