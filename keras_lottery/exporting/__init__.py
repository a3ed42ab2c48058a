"""From a ticket to what a server loads."""
