"""Int8 for ONNX models: static and dynamic, ranges, and which layers suffer."""
