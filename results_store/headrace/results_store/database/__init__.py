"""Connections to Postgres: addresses, bounds on waiting, and errors."""
