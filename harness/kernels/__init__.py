"""Kernels: identifying, importing and booting them."""
