"""Outputs: parts in Parquet, CSV and JSON lines, published create-only; errors, manifest and `_SUCCESS`."""
