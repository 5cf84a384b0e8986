"""operator_backend: what a human operator may ask: the chat and its sessions."""
