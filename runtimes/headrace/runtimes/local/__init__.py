"""Runtimes in the worker's own process: one module for each library, each a plug-in that `base.find_runtime` finds."""
