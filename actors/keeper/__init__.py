"""The keeper: reads the log in order and vouches for it."""
