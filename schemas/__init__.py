"""What is said on the bus: immutable messages, each with its one address."""
