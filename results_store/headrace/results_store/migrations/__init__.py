"""The history of the schema, applied by `headrace.results_store.migrate`."""
