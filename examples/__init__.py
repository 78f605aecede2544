"""Demos on data made here; not part of the package."""
