"""Torture: load, forced sleep and wake, kills and freezes against a scratch system, and a checker of what came of it."""
