"""What a model's outputs are worth, and how sure that is."""
