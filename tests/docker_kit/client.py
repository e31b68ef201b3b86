"""The Engine API in a few words, for tests: what they arrange and look at, without the code under test."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import httpx2

REQUEST_S_MAX = 120
LABEL = {"runyard.test": "yes"}


class EngineError(Exception):
    """The Engine refused, or a stream of its progress ended in an error. `status` is 200 for the latter."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class EngineClient:
    """Speaks to the Engine behind `socket`. `call` is for whatever has no word of its own here."""

    def __init__(self, socket: Path) -> None:
        self.http = httpx2.Client(
            transport=httpx2.HTTPTransport(uds=str(socket)), base_url="http://engine", timeout=REQUEST_S_MAX
        )

    def call(self, method: str, path: str, json: Any = None, **query: Any) -> Any:
        """The decoded reply; None where there is none. Values of `query` that are no strings are sent as JSON."""
        reply = self.http.request(method, path, json=json, params=_query(query))
        _raise(reply)
        return reply.json() if reply.content and "json" in reply.headers.get("content-type", "") else None

    # --- Containers ---------------------------------------------------------------------------------------------------

    def create(self, image: str, *command: str, name: str | None = None, **config: Any) -> str:
        """A container's id. `config` is what the Engine calls it: `HostConfig={"Memory": 1 << 26}`, `Env=["A=1"]`."""
        body = {"Image": image, "Labels": LABEL, **({"Cmd": command} if command else {}), **config}
        return self.call("POST", "/containers/create", body, **({"name": name} if name else {}))["Id"]

    def run(self, image: str, *command: str, name: str | None = None, **config: Any) -> str:
        """Create and start; returns the id."""
        container = self.create(image, *command, name=name, **config)
        self.call("POST", f"/containers/{container}/start")
        return container

    def output(self, image: str, *command: str, **config: Any) -> str:
        """What a container says until it ends; it is gone then."""
        container = self.run(image, *command, **config)
        self.wait(container)
        said = self.logs(container)
        self.remove(container)
        return said

    def wait(self, container: str) -> int:
        """Its exit code, once it has ended."""
        return self.call("POST", f"/containers/{container}/wait")["StatusCode"]

    def inspect(self, container: str) -> dict[str, Any]:
        return self.call("GET", f"/containers/{container}/json")

    def state(self, container: str) -> dict[str, Any]:
        return self.inspect(container)["State"]

    def logs(self, container: str, **query: Any) -> str:
        """Both streams, as they came."""
        query = {"stdout": "1", "stderr": "1", **query}
        reply = self.http.get(f"/containers/{container}/logs", params=_query(query))
        _raise(reply)
        return b"".join(_frames(reply.content)).decode(errors="replace")

    def exec(self, container: str, *command: str) -> tuple[int, str]:
        """Exit code and output of a command inside it."""
        body = {"Cmd": command, "AttachStdout": True, "AttachStderr": True}
        made = self.call("POST", f"/containers/{container}/exec", body)["Id"]
        reply = self.http.post(f"/exec/{made}/start", json={"Detach": False, "Tty": False})
        _raise(reply)
        return self.call("GET", f"/exec/{made}/json")["ExitCode"], b"".join(_frames(reply.content)).decode()

    def remove(self, container: str) -> None:
        self.call("DELETE", f"/containers/{container}", force="1", v="1")

    def containers(self, **filters: list[str]) -> list[dict[str, Any]]:
        return self.call("GET", "/containers/json", all="1", filters=filters)

    def events(self, since: float, until: float, **filters: list[str]) -> list[dict[str, Any]]:
        """What happened between two times, which may not lie in the future."""
        reply = self.http.get(
            "/events", params=_query({"since": f"{since:.9f}", "until": f"{until:.9f}", "filters": filters})
        )
        _raise(reply)
        return [json.loads(line) for line in reply.text.splitlines()]

    # --- Networks -----------------------------------------------------------------------------------------------------

    def create_network(self, name: str, *, internal: bool = False) -> str:
        body = {"Name": name, "Internal": internal, "CheckDuplicate": True, "Labels": LABEL}
        return self.call("POST", "/networks/create", body)["Id"]

    def networks(self) -> list[dict[str, Any]]:
        """Those that somebody made."""
        return self.call("GET", "/networks", filters={"type": ["custom"]})

    # --- Images -------------------------------------------------------------------------------------------------------

    def build(self, tag: str, files: Mapping[str, str | bytes | Path], **arguments: str) -> str:
        """Build a folder of these files and folders, a Dockerfile among them, with these build arguments; returns what was
        printed.
        """
        with io.BytesIO() as context:
            with tarfile.open(fileobj=context, mode="w") as tar:
                for name, content in files.items():
                    _add(tar, name, content)
            reply = self.http.post(
                "/build",
                params={
                    "t": tag,
                    "rm": "1",
                    "forcerm": "1",
                    "labels": json.dumps(LABEL),
                    "buildargs": json.dumps(arguments),
                },
                content=context.getvalue(),
                headers={"content-type": "application/x-tar"},
            )
        return "".join(step.get("stream", "") for step in _progress(reply))

    def load(self, archive: Path) -> None:
        """Take over an archive as `docker save` writes it."""
        with archive.open("rb") as content:
            _progress(self.http.post("/images/load", params={"quiet": "1"}, content=content))

    def has_image(self, reference: str) -> bool:
        return self.http.get(f"/images/{reference}/json").status_code == 200

    def tag(self, image: str, reference: str) -> None:
        repository, _, tag = reference.rpartition(":")
        self.call("POST", f"/images/{image}/tag", repo=repository, tag=tag)

    def pull(self, reference: str, login: tuple[str, str] | None = None) -> list[dict[str, Any]]:
        """The steps of it."""
        repository, _, tag = reference.rpartition(":")
        query = {"fromImage": repository, "tag": tag}
        return _progress(self.http.post("/images/create", params=query, headers=_login(login)))

    def push(self, reference: str, login: tuple[str, str] | None = None) -> str:
        """Push; returns the digest."""
        repository, _, tag = reference.rpartition(":")
        steps = _progress(self.http.post(f"/images/{repository}/push", params={"tag": tag}, headers=_login(login)))
        return next(step["aux"]["Digest"] for step in steps if "Digest" in step.get("aux", {}))

    def untag(self, reference: str) -> None:
        """The last name of an image takes the image with it."""
        self.call("DELETE", f"/images/{reference}", force="1")

    def close(self) -> None:
        self.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _query(query: Mapping[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in query.items()}


def _raise(reply: httpx2.Response) -> None:
    if reply.status_code >= 400:
        try:
            message = reply.json()["message"]
        except (ValueError, KeyError):
            message = reply.text
        raise EngineError(reply.status_code, message)


def _progress(reply: httpx2.Response) -> list[dict[str, Any]]:
    _raise(reply)
    steps = [json.loads(line) for line in reply.text.splitlines() if line.strip()]
    for step in steps:
        if "error" in step:
            raise EngineError(reply.status_code, step["error"])
    return steps


def _frames(stream: bytes) -> Iterator[bytes]:
    """What a container without a terminal wrote: each piece follows a head of eight bytes, its size in the last four."""
    while stream:
        size = int.from_bytes(stream[4:8], "big")
        yield stream[8 : 8 + size]
        stream = stream[8 + size :]


def _login(login: tuple[str, str] | None) -> dict[str, str]:
    username, password = login or ("", "")
    words = json.dumps({"username": username, "password": password}).encode()
    return {"x-registry-auth": base64.urlsafe_b64encode(words).decode()}


def _add(tar: tarfile.TarFile, name: str, content: str | bytes | Path) -> None:
    if isinstance(content, Path):
        tar.add(content, name)
        return
    content = content.encode() if isinstance(content, str) else content
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
