"""Masks: names, criteria, allocations, schedules. Nothing here trains."""
