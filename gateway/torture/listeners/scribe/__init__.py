"""The actor whose durable handler torture tells of events."""
