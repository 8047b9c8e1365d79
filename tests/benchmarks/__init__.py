"""Times this package beside its peers on the same arrays. Run it: `python -m tests.benchmarks --help`."""
