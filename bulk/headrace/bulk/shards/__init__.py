"""Running one shard: reading, preparing, inferring and writing at the same time."""
