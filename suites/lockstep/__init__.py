"""Kernel and oracle make the same calls."""
