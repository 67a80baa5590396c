"""The kombu channel: what it consumes, delivers, acknowledges and publishes, and how it waits."""
