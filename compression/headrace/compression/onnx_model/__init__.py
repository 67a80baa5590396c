"""ONNX graphs: reading, preparation for quantization, and the comparison of products with their sources."""
