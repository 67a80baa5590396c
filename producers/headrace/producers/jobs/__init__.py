"""Bulk jobs of a client: what is to be scored, whether that job is there already, its progress and its end."""
