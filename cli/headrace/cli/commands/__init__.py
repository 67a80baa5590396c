"""The commands of `headrace`, one module for each noun."""
