"""Formats that are text: files cut at the ends of rows, CSV and JSON lines, compressed or not."""
