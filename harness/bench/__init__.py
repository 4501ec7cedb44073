"""How fast the harness is on this host."""
