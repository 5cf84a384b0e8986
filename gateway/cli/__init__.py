"""The `vx11` command: what an operator types."""
