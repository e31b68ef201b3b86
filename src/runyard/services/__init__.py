"""Use cases: load, ask the domain, apply. Services name ports, never adapters."""
