"""What headrace is compared with: scripts that run in processes and environments of their own, without headrace."""
