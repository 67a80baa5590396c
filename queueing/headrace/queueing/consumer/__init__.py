"""Consumers: claims of batches, leases and their renewal, running markers, and what consumers serve."""
