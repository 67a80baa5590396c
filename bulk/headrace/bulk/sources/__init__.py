"""Formats of inputs: Parquet, Arrow, CSV, JSON lines, NumPy, folders of images, OpenAI batches."""
