"""Writing finished batches: encoding, statements, partitions, and rows that Postgres refuses."""
