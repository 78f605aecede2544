"""Smaller networks: decomposition of convolutions, architecture search."""
