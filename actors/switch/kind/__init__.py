"""What a message is about, and what texts mean."""
