"""tentaculo_link, the gateway: the single HTTP entrypoint."""
