"""ONNX graphs made ready for quantization, and products compared with their sources."""
