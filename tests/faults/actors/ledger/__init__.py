"""The actor whose every effect is written down, so that a test can count them."""
