"""Models on servers elsewhere: what a batch is sent to, and what comes back."""
