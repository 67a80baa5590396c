"""The search for the fastest model within a bound: its stages, trials and result."""
