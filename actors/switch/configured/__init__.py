"""What is written in providers.toml."""
