"""The hot routes: taken off the HTTP parser as plain protocol callbacks, without a task or ASGI scope (decision 2)."""
