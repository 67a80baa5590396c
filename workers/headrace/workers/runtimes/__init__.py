"""Runtimes: one module for each library that runs models."""

from headrace.workers.runtimes.base import LoadedModel, OutOfMemory, Runtime, TransientFailure, find_runtime

__all__ = ["LoadedModel", "OutOfMemory", "Runtime", "TransientFailure", "find_runtime"]
