"""Formats of parts: each writes rows into one local scratch file."""
