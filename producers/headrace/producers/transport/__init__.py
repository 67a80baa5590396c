"""A client's connections to the broker: kinds, limits on concurrent calls, sending, and renewal after a fork."""
