"""Between columns and tensors: mapping, casts, nulls, images, text; and outputs of a model as columns."""
