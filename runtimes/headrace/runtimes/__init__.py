"""Runtimes load and run models. `base` is the contract; `local` holds libraries that run in the worker's process."""
