"""TensorFlow Serving."""
