"""Replies: the inboxes, the store as the second source, lost requests, and cancellation."""
