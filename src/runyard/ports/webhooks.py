"""How the platform calls addresses that its users name."""

from __future__ import annotations

from typing import Protocol


class WebhookSender(Protocol):
    """Sends one request and reads what it was answered."""

    async def send(self, url: str, body: bytes) -> int:
        """POST a JSON body; returns the status of the answer, which is the receiver's own: redirects are not followed.

        Raises `WebhookRefused` for an address that the platform must not call, `WebhookFailed` when no answer came. The
        caller bounds its time: cancelling it ends the request.
        """
        ...
