"""Nets of related systems: each module is a family with a ``build``, named in ``registry``."""
