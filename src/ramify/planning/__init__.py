"""Where compute should go: across settings, across problems, between solving and verifying, and to which method."""
