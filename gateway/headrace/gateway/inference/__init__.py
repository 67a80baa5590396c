"""From a request to its answer by way of the queue, whatever the protocol."""
