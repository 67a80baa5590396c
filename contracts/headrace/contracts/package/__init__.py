"""Model packages: the manifest, the signature of a model, and when two models count as equal."""
