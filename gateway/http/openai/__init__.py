"""The OpenAI-compatible door: programs made for OpenAI's API ask switch, and are answered in its shapes."""
