"""`headrace compress`."""
