"""The control plane from Python: what the command line uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from runyard.client import calls
from runyard.client.calls import CALL_TIMEOUT_S, Call
from runyard.client.errors import ApiError, client_errors
from runyard.client.sync import Connection
from runyard.wire import control as wire
from runyard.wire import secrets as secret
from runyard.wire import webhooks as hooks
from runyard.wire.jobs import HealthBody, JobListBody

NOT_FOUND = 404
UPLOAD_TIMEOUT_S = 600.0
REDRIVE_TIMEOUT_S = 600.0
_T = TypeVar("_T")


class Control:
    """Endpoints, bundles, logs, keys and secrets over one connection. Every method raises `ClientError`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def endpoints(self) -> list[wire.Endpoint]:
        return self._get("/v2/serverless", wire.EndpointList).endpoints

    def find(self, id_or_name: str) -> wire.Endpoint | None:
        """By id, else by name."""
        endpoints = self.endpoints()
        by_id = (endpoint for endpoint in endpoints if endpoint.id == id_or_name)
        by_name = (endpoint for endpoint in endpoints if endpoint.name == id_or_name)
        return next(by_id, None) or next(by_name, None)

    def create(self, body: Mapping[str, Any]) -> wire.Endpoint:
        return self._ask(Call(method="POST", path="/v2/serverless", body=body), wire.Endpoint)

    def update(self, endpoint_id: str, body: Mapping[str, Any]) -> wire.Endpoint:
        return self._ask(Call(method="PATCH", path=_endpoint(endpoint_id), body=body), wire.Endpoint)

    def delete(self, endpoint_id: str) -> None:
        self.connection.send(Call(method="DELETE", path=_endpoint(endpoint_id)))

    def workers(self, endpoint_id: str) -> wire.WorkerList:
        return self._get(_endpoint(endpoint_id, "workers"), wire.WorkerList)

    def releases(self, endpoint_id: str) -> wire.ReleaseList:
        return self._get(_endpoint(endpoint_id, "releases"), wire.ReleaseList)

    def health(self, endpoint_id: str) -> HealthBody:
        return self._ask(calls.health(endpoint_id), HealthBody)

    def jobs(self, endpoint_id: str, query: Mapping[str, str]) -> JobListBody:
        """One page, newest first; `query` may have states, workerId, limit and after."""
        path = f"/v2/{quote(endpoint_id, safe='')}/requests"
        return self._ask(Call(method="GET", path=path, query=query), JobListBody)

    def dead_letters(self, endpoint_id: str, query: Mapping[str, str]) -> wire.DeadLetterList:
        """One page, newest first; `query` may have limit and after."""
        path = _endpoint(endpoint_id, "dead-letters")
        return self._ask(Call(method="GET", path=path, query=query), wire.DeadLetterList)

    def redrive(self, endpoint_id: str, body: Mapping[str, Any]) -> wire.Redriven:
        """Queue dead letters again: `ids` (and `force`), or `all`."""
        path = _endpoint(endpoint_id, "dead-letters", "redrive")
        return self._ask(Call(method="POST", path=path, body=body, timeout_s=REDRIVE_TIMEOUT_S), wire.Redriven)

    def has_bundle(self, digest: str) -> bool:
        try:
            self.connection.send(Call(method="HEAD", path=f"/v2/bundles/{digest}"))
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            return False
        return True

    def upload(self, digest: str, chunks: Iterable[bytes], size: int) -> None:
        """Bring a bundle of `size` bytes."""
        http, url = self.connection.http, self.connection.address.url
        with client_errors(url):
            response = http.put(
                f"/v2/bundles/{digest}",
                content=chunks,
                headers={"Content-Length": str(size)},
                timeout=UPLOAD_TIMEOUT_S,
            )
            calls.check(response.status_code, response.content)

    def logs(
        self, endpoint_id: str, query: Mapping[str, str], *, last_event_id: str | None = None
    ) -> Iterator[tuple[str, wire.LogEvent]]:
        """Lines of an endpoint's log, each with the id from which to go on; ends when the platform ends it."""
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        http, url = self.connection.http, self.connection.address.url
        with (
            client_errors(url),
            http.sse(
                _endpoint(endpoint_id, "logs"), params=dict(query), headers=headers, timeout=CALL_TIMEOUT_S
            ) as events,
        ):
            if events.response.is_error:
                events.response.read()
                calls.check(events.response.status_code, events.response.content)
            for event in events:
                yield event.id, calls.decode(event.data.encode(), wire.LogEvent)

    def webhooks(self, endpoint_id: str, query: Mapping[str, str]) -> hooks.DeliveryList:
        """One page, newest first; `query` may have jobId, state, limit and after."""
        return self._ask(Call(method="GET", path=_endpoint(endpoint_id, "webhooks"), query=query), hooks.DeliveryList)

    def webhook(self, endpoint_id: str, delivery_id: str) -> hooks.Delivery:
        return self._get(_endpoint(endpoint_id, "webhooks", quote(delivery_id, safe="")), hooks.Delivery)

    def redeliver(self, endpoint_id: str, delivery_id: str) -> hooks.Delivery:
        path = _endpoint(endpoint_id, "webhooks", quote(delivery_id, safe=""), "redeliver")
        return self._ask(Call(method="POST", path=path), hooks.Delivery)

    def webhook_secret(self, endpoint_id: str, *, rotate: bool = False) -> hooks.SigningSecret:
        method = "POST" if rotate else "GET"
        return self._ask(Call(method=method, path=_endpoint(endpoint_id, "webhook-secret")), hooks.SigningSecret)

    def keys(self) -> list[wire.Key]:
        return self._get("/v2/keys", wire.KeyList).keys

    def create_key(self, name: str) -> wire.CreatedKey:
        return self._ask(Call(method="POST", path="/v2/keys", body={"name": name}), wire.CreatedKey)

    def revoke_key(self, key_id: str) -> None:
        self.connection.send(Call(method="DELETE", path=f"/v2/keys/{quote(key_id, safe='')}"))

    def secrets(self) -> secret.SecretList:
        return self._get("/v2/secrets", secret.SecretList)

    def set_secret(self, name: str, value: str) -> secret.Secret:
        path = f"/v2/secrets/{quote(name, safe='')}"
        return self._ask(Call(method="PUT", path=path, body={"value": value}), secret.Secret)

    def delete_secret(self, name: str) -> None:
        self.connection.send(Call(method="DELETE", path=f"/v2/secrets/{quote(name, safe='')}"))

    def rotate_secrets(self) -> secret.Rotated:
        return self._ask(Call(method="POST", path="/v2/secrets/rotate"), secret.Rotated)

    def registries(self) -> secret.RegistryList:
        return self._get("/v2/registries", secret.RegistryList)

    def create_registry(self, name: str, username: str, password: str, server: str | None) -> secret.Registry:
        body: dict[str, Any] = {"name": name, "username": username, "password": password}
        if server is not None:
            body["runyard"] = {"server": server}
        return self._ask(Call(method="POST", path="/v2/registries", body=body), secret.Registry)

    def delete_registry(self, registry_id: str) -> None:
        self.connection.send(Call(method="DELETE", path=f"/v2/registries/{quote(registry_id, safe='')}"))

    def _get(self, path: str, shape: type[_T]) -> _T:
        return self._ask(Call(method="GET", path=path), shape)

    def _ask(self, call: Call, shape: type[_T]) -> _T:
        return self.connection.ask(call, shape)


def _endpoint(endpoint_id: str, *rest: str) -> str:
    return "/".join(("/v2/serverless", quote(endpoint_id, safe=""), *rest))
