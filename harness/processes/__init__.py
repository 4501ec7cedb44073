"""Processes inside a guest, driven from Python one system call at a time."""
