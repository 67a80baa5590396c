"""The trial of a model file: where tensors hold their rows, and whether company changes the answer of a row."""
