"""Fixtures shared with the conformance suite."""

from conformance.conftest import allocator, kernel

__all__ = ["allocator", "kernel"]
