"""The formats of model files: each copies a file into its package's folder and declares what it takes and gives."""

from headrace.lifecycle.packages.formats.kinds import take_in

__all__ = ["take_in"]
