"""QEMU machines. Nothing here knows which operating system runs inside."""
