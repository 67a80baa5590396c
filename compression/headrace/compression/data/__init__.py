"""Rows to calibrate, train and measure with: files, their columns, and how they are laid out."""
