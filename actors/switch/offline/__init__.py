"""The language model on this machine."""
