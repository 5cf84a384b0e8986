"""switch: the router to language models."""
