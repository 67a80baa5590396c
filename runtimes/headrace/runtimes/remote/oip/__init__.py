"""Servers of the Open Inference Protocol, and TorchServe."""
