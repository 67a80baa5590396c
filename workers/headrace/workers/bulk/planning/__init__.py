"""The jobs that a worker leads for a time: planned, tried, and written to their end."""
