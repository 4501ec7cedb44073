"""Campaigns: one suite over one or more targets."""
