"""Quantization to 8 bits."""
