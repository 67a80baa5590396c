"""Cutting inputs into shards: pure policies, and the planner that pages through files."""
