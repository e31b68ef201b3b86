"""Real stores, runtimes, clocks. Each is unaware of the others; only `runyard.app` knows which one is in use."""
