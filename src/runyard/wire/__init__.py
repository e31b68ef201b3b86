"""The public JSON contract, with exactly the wire's names. Payloads pass through as raw bytes (decision 10)."""
