"""From claimed messages to checked requests, and how many are claimed ahead."""
