"""Nets of related systems, a module with ``build`` per family; see ``registry.FAMILIES``."""
