"""Processes and threads of a worker: the supervisor, threads whose failure ends it, its event loop, the GIL handoff."""
