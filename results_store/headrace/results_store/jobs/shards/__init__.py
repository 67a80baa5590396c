"""What workers do with shards: claim them, keep them or give them up, complete them."""
