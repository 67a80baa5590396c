"""Metrics of a model's outputs, with confidence intervals."""
