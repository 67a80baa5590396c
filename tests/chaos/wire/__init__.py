"""What lies between the world and its servers: proxies that can cut, stall, refuse, and fall silent for good."""
