"""Processes of this machine: child processes, and a lock that lets one instance run."""
