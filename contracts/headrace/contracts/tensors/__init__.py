"""Tensors: their datatypes, their rows, and how they travel as bytes and as JSON."""
