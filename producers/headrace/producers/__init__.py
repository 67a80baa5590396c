"""headrace.producers."""
