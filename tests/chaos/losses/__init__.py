"""A run of its own: the broker loses its data. Durable requests survive it; who waits for a plain one is told."""
