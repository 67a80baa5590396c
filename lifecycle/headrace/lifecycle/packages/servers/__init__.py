"""Packages of models on model servers: discovery, a small trial of rows, the manifest."""
