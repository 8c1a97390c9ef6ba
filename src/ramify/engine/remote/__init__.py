"""An engine in a process of its own: what crosses between the two, the process, and the client in front of it."""
