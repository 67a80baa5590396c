"""headrace.workers."""
