"""`make bench`: ramify and its peers, side by side (see `lab.main` for the options)."""

from benchmarks.lab.main import main

if __name__ == "__main__":
    main()
