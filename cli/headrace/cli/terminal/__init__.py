"""How commands speak: tables, lines, JSON and errors."""
