"""The output folder: names of parts, whose they are, publication, what the folder may hold, and its removal."""
