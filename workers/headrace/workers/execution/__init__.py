"""Running batches: the executor, the pipeline of layers, batches in flight, bisection of failures, and backoff."""
