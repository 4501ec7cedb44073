"""Base images: importing, sealing and, for the control guest, putting together."""
