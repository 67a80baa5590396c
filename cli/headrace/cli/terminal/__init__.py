"""Output of commands: tables, lines, JSON and errors; options that they share."""
