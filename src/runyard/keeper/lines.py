"""How the keeper and its servers speak: lines of JSON."""

from __future__ import annotations

import json
import selectors
import socket
from collections.abc import Callable
from typing import Any

LINE_BYTES_MAX = 16 << 20
READ_BYTES = 64 << 10

Message = dict[str, Any]


class Line:
    """JSON lines over a non-blocking socket, either way."""

    def __init__(self, selector: selectors.BaseSelector, sock: socket.socket, hear: Callable[[Message], None]) -> None:
        sock.setblocking(False)
        self._selector, self._sock, self._hear = selector, sock, hear
        self._got, self._unsent = bytearray(), bytearray()
        self.open = True
        self.when_closed: Callable[[], None] = lambda: None
        selector.register(sock, selectors.EVENT_READ, self._ready)

    def say(self, **message: Any) -> None:
        """Send it, or what the socket does not take later; nothing happens when the other side has gone."""
        if self.open:
            self._unsent += json.dumps(message).encode() + b"\n"
            self._flush()

    def close(self) -> None:
        if self.open:
            self.open = False
            self._selector.unregister(self._sock)
            self._sock.close()
            self.when_closed()

    def _ready(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush()
        if self.open and events & selectors.EVENT_READ:
            self._read()

    def _read(self) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._got += data
        *lines, self._got = self._got.split(b"\n")
        for line in lines:
            self._hear(json.loads(line))
        if not data or len(self._got) > LINE_BYTES_MAX:
            self.close()

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._selector.modify(
            self._sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0), self._ready
        )
