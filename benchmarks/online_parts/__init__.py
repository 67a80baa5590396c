"""The parts of benchmarks/online.py: both sides, their clients, the measurements and the report."""
