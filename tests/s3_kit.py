"""An object store over HTTP, for tests: moto's, with faults in front of it, on loopback."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import botocore.session
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from runyard.adapters.payloads_s3 import S3Payloads
from runyard.adapters.s3 import Bucket

BUCKET = "results"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "a-test-key-id",
    "AWS_SECRET_ACCESS_KEY": "a-test-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""An environment in which AWS's libraries look nowhere else."""

Environ = dict[str, Any]
Start = Callable[..., Any]
Fault = Callable[[Environ, Start, Callable[[], Iterable[bytes]]], Iterable[bytes] | None]
"""Gets the environment and start of a request and what answers it; None: it has no opinion."""


class ObjectStore:
    """`fault` may answer in place of the store. `asked` has the method and query of each request."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fault: Fault | None = None
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=MotoRequestHandler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.client = botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="tester",
            aws_secret_access_key="tester",
        )

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.01)

    def stop(self) -> None:
        self.client.close()
        self._server.shutdown()
        self._server.server_close()

    def empty(self) -> None:
        """One bucket, and nothing in it."""
        self.fault = None
        for bucket in self.client.list_buckets()["Buckets"]:
            for key in self.names(bucket["Name"]):
                self.client.delete_object(Bucket=bucket["Name"], Key=key)
            self.client.delete_bucket(Bucket=bucket["Name"])
        self.client.create_bucket(Bucket=BUCKET)
        self.asked.clear()

    def names(self, bucket: str = BUCKET) -> list[str]:
        return [object["Key"] for object in self.client.list_objects_v2(Bucket=bucket).get("Contents", ())]

    def uploads(self) -> list[str]:
        """Keys of those that have begun."""
        found = self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
        return [upload["Key"] for upload in found]

    def _answer(self, environ: Environ, start: Start) -> Iterable[bytes]:
        self.asked.append(f"{environ['REQUEST_METHOD']} {environ['QUERY_STRING']}")
        if self.fault is not None:
            answer = self.fault(environ, start, lambda: self._app(environ, start))
            if answer is not None:
                return answer
        return self._app(environ, start)


def s3_payloads(store: ObjectStore, *, bucket: str = BUCKET, prefix: str = "here", **more: Any) -> S3Payloads:
    """Of a platform called mine; each call is tried once."""
    return S3Payloads(Bucket(bucket, prefix, endpoint=store.url, tries=1), **{"owner": "mine"} | more)


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    store = ObjectStore()
    serving = threading.Thread(target=store.serve, name="object-store")
    serving.start()
    try:
        yield store
    finally:
        store.stop()
        serving.join()
