"""The end of a job: its parts verified, its errors, its manifest and `_SUCCESS`."""
