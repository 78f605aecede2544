"""Smaller forms of a trained network."""
