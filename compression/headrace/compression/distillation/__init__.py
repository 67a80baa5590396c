"""Distillation: a small network learns to answer as a large one does."""
