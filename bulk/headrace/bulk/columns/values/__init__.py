"""Columns of numbers, lists and strings as inputs: taken apart, cast, and put together as tensors."""
