"""torch networks: how they are found, what they cost, and the families that are built in."""
