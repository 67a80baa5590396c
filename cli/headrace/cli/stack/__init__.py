"""The local stack: Valkey, Postgres, a worker and Flower as child processes."""
