"""How results reach people."""
