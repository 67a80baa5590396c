"""Int8 in torch itself."""
