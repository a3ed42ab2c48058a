"""Experiments on disk: replicates, arms and levels, continued where left."""
