"""The actor that is fed what cannot be ground."""
