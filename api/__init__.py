"""Carrel's outside: HTTP, the command line, the processes, and the wiring of everything below."""
