"""Tickets: the search for them, the wrapper, controls and files."""
