"""Exports of torch networks, compared with the networks they came from."""
