"""Bulk jobs in a worker: tickets, claims of shards, batches between those of online requests, planning, sweeping."""
