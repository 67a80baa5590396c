"""headrace.cli."""
