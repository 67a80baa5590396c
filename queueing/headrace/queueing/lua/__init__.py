"""The Lua scripts that run inside the server, each one atomic step, and the code that fills in their parameters."""
