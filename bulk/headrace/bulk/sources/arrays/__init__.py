"""NumPy files: arrays whose first axis is the rows."""
