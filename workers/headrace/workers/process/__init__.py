"""The processes and threads of a worker: the supervisor, threads whose failure ends it, its event loop, and the GIL handoff."""
