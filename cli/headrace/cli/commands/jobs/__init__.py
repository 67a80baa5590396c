"""`headrace jobs`, and what it shares with `headrace score`: watching, lines and tables of jobs, a stack for one."""
