"""A model as a function of record batches, for engines that run functions."""
