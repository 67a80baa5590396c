"""Packages of models on model servers: what servers tell of a model, a small trial of its rows, the manifest."""
