"""Makes models smaller and faster, and proves that it pays: quantize, prune, distill, export, evaluate, report."""
