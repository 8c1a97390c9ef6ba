"""`make bench`: every benchmark, one after the other."""

from benchmarks import throughput

throughput.main()
