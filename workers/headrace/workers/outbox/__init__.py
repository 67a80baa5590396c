"""Finished batches become committed rows, then replies, then acknowledgements."""
