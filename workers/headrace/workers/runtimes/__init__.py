"""Runtimes: one module for each library that runs models."""

from headrace.workers.runtimes.base import LoadedModel, Runtime, find_runtime

__all__ = ["LoadedModel", "Runtime", "find_runtime"]
