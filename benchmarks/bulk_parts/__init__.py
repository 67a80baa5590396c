"""Parts of `benchmarks/bulk.py`: inputs, bare loops, rivals, and a stage on which headrace runs jobs."""
