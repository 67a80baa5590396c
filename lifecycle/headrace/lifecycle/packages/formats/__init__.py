"""The formats of model files: each copies a file into its package's folder and declares its inputs and outputs."""

from headrace.lifecycle.packages.formats.kinds import take_in

__all__ = ["take_in"]
