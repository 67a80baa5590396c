"""The paths of the gateway, one module for each group."""
