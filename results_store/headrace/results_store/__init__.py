"""headrace.results_store."""
