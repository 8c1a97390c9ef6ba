"""Draw whole answers, then choose among them."""
