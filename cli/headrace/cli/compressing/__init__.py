"""What `headrace compress` shows."""
