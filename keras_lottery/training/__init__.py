"""Training under a mask: what holds it, what is restored, what is read."""
