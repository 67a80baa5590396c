"""Running batches: the executor's thread, bisection of failures, backoff, and cancellation."""
