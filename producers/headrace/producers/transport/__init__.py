"""A client's connections to the broker, and who may use them when."""
