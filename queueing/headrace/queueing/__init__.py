"""headrace.queueing."""
