"""Durable requests: kept as rows before they are sent, by clients, applications and relays."""
