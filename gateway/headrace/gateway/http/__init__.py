"""HTTP as every route uses it: bodies within limits, compression, problem details, preferences."""
