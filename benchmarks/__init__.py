"""The benchmarks of `jobs/benchmark.py`, one a file; what a benchmark runs on Ray belongs into `idgbr.distributed`."""
