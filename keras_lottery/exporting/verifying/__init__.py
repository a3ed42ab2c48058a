"""Exports as servers load them, and whether they are what they say."""
