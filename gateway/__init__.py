"""The doors: HTTP, the command line and the console. They know the bus and the messages, never an actor."""
