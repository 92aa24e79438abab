"""Pruning: what of a network can go, and what is left when it is gone."""
