"""Connections to Redis, Valkey and Sentinel: URLs, bounds on waiting, refusals, and what servers must be set to."""
