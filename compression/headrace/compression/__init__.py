"""headrace.compression."""
