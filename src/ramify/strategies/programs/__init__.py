"""Programs of model calls: methods that ask critics, rankers, verifiers and planners besides drawing answers."""
