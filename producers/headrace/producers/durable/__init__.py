"""Durable requests of a client: kept as rows in Postgres, then sent."""
