"""Administration of the queues: statistics, dead letters, delayed messages, searches, remote control, Flower's page."""
