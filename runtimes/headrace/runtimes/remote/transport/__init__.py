"""The two ways to a server, gRPC and HTTP: channels, and what statuses and texts of servers mean."""
