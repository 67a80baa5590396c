"""Runtimes: one module for each library that runs models, each a plug-in that `headrace.contracts.runtime` finds."""
