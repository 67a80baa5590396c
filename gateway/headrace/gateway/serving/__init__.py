"""The gateway as a program: its server, and the processes that share a port."""
