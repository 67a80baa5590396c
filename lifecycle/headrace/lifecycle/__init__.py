"""Lifecycle: a model's life outside a worker. `packages` makes, proves, moves and removes model packages."""
