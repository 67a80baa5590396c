"""TensorFlow's SavedModel (a folder), converted through OpenVINO, since no runtime here reads it."""
