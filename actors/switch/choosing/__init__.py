"""Whom to ask: what is known of the models, and how they are weighed."""
