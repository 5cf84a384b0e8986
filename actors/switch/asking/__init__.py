"""How a provider is asked, and how its answer is read."""
