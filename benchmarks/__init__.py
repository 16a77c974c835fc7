"""One script per claim; run them from the root of the repository: ``python -m benchmarks.NAME``."""
