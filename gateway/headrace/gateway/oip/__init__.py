"""The Open Inference Protocol v2 over HTTP, without I/O: bodies of requests and answers, descriptions of models."""
