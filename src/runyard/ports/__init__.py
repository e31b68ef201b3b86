"""What the services need from the world, as Protocols. One port, one contract suite in `tests/contract/`."""
