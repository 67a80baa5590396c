"""Building requests: inputs, their check against what workers serve, and their encoding."""
