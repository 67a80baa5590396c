"""ONNX Runtime made usable: sessions, names of types, values in other forms, and the outputs that are kept."""
