"""What runs inside the server."""
