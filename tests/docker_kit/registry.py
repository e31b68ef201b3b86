"""A real registry on loopback, and a way to it that breaks."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tests.docker_kit import host
from tests.docker_kit.client import EngineClient

LOGIN = ("tester", "a secret of the tests")
HTPASSWD = "tester:$2b$04$D.xRArnXY0DP4L5rNb3io.iSK9uyDbjB/regJaggQ0s5hE91CagcW\n"
"""LOGIN, hashed with bcrypt, the only kind that the registry takes."""
START_S_MAX = 15
CHUNK_BYTES = 16384


class Registry:
    """What is pushed lasts across `kill` and `start`. Its `host` is the same then."""

    def __init__(self, folder: Path, *, login: tuple[str, str] | None = None) -> None:
        self.login = login
        self.port = _free_port()
        self.host = f"127.0.0.1:{self.port}"
        self._folder = folder
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        config = self._folder / "config.json"
        config.write_text(json.dumps(self._config()))
        (self._folder / "htpasswd").write_text(HTPASSWD)
        with (self._folder / "log").open("ab") as log:
            command = ["docker-registry", "serve", str(config)]
            self._server = subprocess.Popen(
                command, stdout=log, stderr=log, env=host.environment(), start_new_session=True
            )
        deadline = time.monotonic() + START_S_MAX
        while not self._answers():
            assert self._server.poll() is None, f"the registry ended\n{self.log()}"
            assert time.monotonic() < deadline, f"the registry is not ready after {START_S_MAX} s\n{self.log()}"
            time.sleep(0.02)

    def kill(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    @contextmanager
    def down(self) -> Iterator[None]:
        """It is away meanwhile."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    def push(self, client: EngineClient, image: str, name: str) -> str:
        """Push an image of the engine under this name, `worker:1`; returns the reference to pull it by."""
        reference = f"{self.host}/{name}"
        client.tag(image, reference)
        client.push(reference, self.login)
        client.untag(reference)
        return reference

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def _config(self) -> dict[str, object]:
        # JSON is YAML, too.
        config: dict[str, object] = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(self._folder / "data")}, "delete": {"enabled": True}},
            "http": {"addr": self.host},
        }
        if self.login:
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(self._folder / "htpasswd")}}
        return config

    def _answers(self) -> bool:
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(f"http://{self.host}/v2/", trust_env=False).status_code in (200, 401)
        return False


class Cut:
    """A way to a server on loopback that can be cut: `cut_after` bytes from the server, over all connections, all of them
    are reset, and new ones are too, until `heal`. None: it holds.
    """

    def __init__(self, port: int) -> None:
        self.cut_after: int | None = None
        self._target = ("127.0.0.1", port)
        self._passed_bytes = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def heal(self) -> None:
        with self._lock:
            self.cut_after, self._passed_bytes = None, 0

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._reset_all()

    @property
    def is_cut(self) -> bool:
        return self.cut_after is not None and self._passed_bytes >= self.cut_after

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._join(client)

    def _join(self, client: socket.socket) -> None:
        with self._lock:
            self._open.add(client)
        if self.is_cut:
            self._reset_all()
            return
        try:
            server = socket.create_connection(self._target)
        except OSError:
            _reset(client)
            return
        with self._lock:
            self._open.add(server)
        threading.Thread(target=self._pump, args=(client, server), daemon=True).start()
        threading.Thread(target=self._pump, args=(server, client), kwargs={"counted": True}, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, *, counted: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                target.sendall(data)
                if counted:
                    with self._lock:
                        self._passed_bytes += len(data)
                    if self.is_cut:
                        self._reset_all()
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _reset_all(self) -> None:
        with self._lock:
            sockets, self._open = self._open, set()
        for each in sockets:
            _reset(each)


def _reset(connection: socket.socket) -> None:
    """End it as a machine that is gone does, not as one that has said all."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def through_a_cut(registry: Registry) -> Iterator[Cut]:
    cut = Cut(registry.port)
    try:
        yield cut
    finally:
        cut.close()


@contextmanager
def serving(folder: Path, *, login: tuple[str, str] | None = None) -> Iterator[Registry]:
    registry = Registry(folder, login=login)
    try:
        registry.start()
        yield registry
    finally:
        registry.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
