"""Trial runs of a model file: where its tensors hold rows, and whether rows are independent of their batch mates."""
