"""`make bench`: ramify and its peers, side by side (see `lab.main` for the options)."""

import signal
import sys

from benchmarks.lab.main import main

if __name__ == "__main__":
    # A run that is told to stop goes through its `finally`s: engines that wait (SIGSTOP) would outlive it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    main()
