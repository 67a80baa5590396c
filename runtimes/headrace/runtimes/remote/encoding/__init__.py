"""Tensors as servers write them: raw bytes, JSON, and a model's description."""
