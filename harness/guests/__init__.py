"""Running operating systems: console, SSH, identity, panic state."""
