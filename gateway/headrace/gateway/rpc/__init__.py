"""The Open Inference Protocol v2 over gRPC: its messages, its calls, and the server."""
