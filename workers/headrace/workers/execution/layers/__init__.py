"""Layers around the run of a batch, one a module; `execution.pipeline` puts them in order."""
