"""The processes and threads of a worker: the supervisor, threads whose failure ends it, and turns at the GIL."""
