"""Stop early: as soon as more samples, or more of a sample, would not change the answer."""
