"""What people and tools ask of the queues: statistics, dead letters, searches, remote control, Flower's page."""
