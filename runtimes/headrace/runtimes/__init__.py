"""Runtimes: what runs a model. `base` is the contract, `local` holds the libraries that run in the worker's process."""
