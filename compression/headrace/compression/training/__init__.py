"""Training torch networks: the options, the data, the loss and the loop."""
