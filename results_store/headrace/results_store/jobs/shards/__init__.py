"""Shards in the hands of workers: claimed, kept or given up, completed."""
