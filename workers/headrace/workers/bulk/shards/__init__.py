"""The shards that a worker runs: claimed, run between online batches, stopped and completed."""
