"""Search over reasoning steps: trees that a scorer steers."""
