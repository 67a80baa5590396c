"""Messages that were delivered before: decoded one at a time, and looked up in the store."""
