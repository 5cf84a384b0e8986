"""The actor notebook."""
