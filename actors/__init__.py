"""Who acts: one folder per actor, a thin `actor.py` and pure modules beside it."""
