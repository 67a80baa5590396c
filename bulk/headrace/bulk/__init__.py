"""Bulk scoring: reading inputs, preparing rows for a model, writing outputs, and running a shard of a job."""
