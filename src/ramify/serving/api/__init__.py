"""The endpoints, one file a family. A route reads, checks, hands on and answers; what it calls lives elsewhere."""
