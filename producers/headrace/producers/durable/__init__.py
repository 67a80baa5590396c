"""Durable requests of clients."""
