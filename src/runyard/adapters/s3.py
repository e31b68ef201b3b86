"""One bucket of an object store that speaks S3, below one prefix: blocking calls, and errors that say what to change.

Credentials are found as all AWS tools find them: `AWS_*` variables, profiles, the machine's role. They are not asked for
here, nor kept, nor told.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from runyard.domain.errors import BadRequest, NotFound, TooBusy

SCHEME = "s3://"
CONNECT_S_MAX, READ_S_MAX = 5.0, 20.0
TRIES = 2
"""Of each call. A result waits 240 s for its payload, its worker 300 s for an answer; the last call has to fit between."""
CONNECTIONS_KEPT_MAX = 64
DELETE_MAX = 1000
"""Most objects that one call deletes."""
_MISSING = {"404", "NoSuchKey", "NoSuchUpload", "PreconditionFailed", "412"}
_REFUSED = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_ELSEWHERE = {"301", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_T = TypeVar("_T")


class Body(NamedTuple):
    """An object that is being read."""

    stream: Any
    size: int
    """In bytes, from where reading began."""
    tag: str
    """Another, when the object is."""


class Bucket:
    """Names are below the prefix. Calls block, and come from any thread. All raise `TooBusy` when the store cannot be
    reached or does not want to, and the message says what to do about it.
    """

    def __init__(self, name: str, prefix: str, *, endpoint: str = "", region: str = "", tries: int = TRIES) -> None:
        """`endpoint` and `region` empty: what AWS's own settings say. Raises `BadRequest` when they cannot be."""
        self._name = name
        self._below = f"{prefix}/" if prefix else ""
        self._place = endpoint or "S3"
        self._faults = _library("botocore.exceptions")
        self._client = self._connected(endpoint or None, region or None, tries)

    def __str__(self) -> str:
        return f"{SCHEME}{self._name}/{self._below}"

    def put(self, name: str, data: bytes | bytearray) -> None:
        self._call(self._client.put_object, name, Body=data)

    def begin(self, name: str) -> str:
        """An upload in parts; its id."""
        return self._call(self._client.create_multipart_upload, name)["UploadId"]

    def put_part(self, name: str, upload: str, number: int, data: bytes | bytearray) -> str:
        """Its tag. Numbers begin with 1; all parts but the last have at least 5 MiB."""
        return self._call(self._client.upload_part, name, UploadId=upload, PartNumber=number, Body=data)["ETag"]

    def complete(self, name: str, upload: str, tags: Sequence[str]) -> None:
        """Of its parts in order. Raises `NotFound` when there is no such upload, or none any more."""
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        self._call(self._client.complete_multipart_upload, name, UploadId=upload, MultipartUpload={"Parts": parts})

    def abort(self, name: str, upload: str) -> None:
        """Nothing happens when there is no such upload."""
        with suppress(NotFound):
            self._call(self._client.abort_multipart_upload, name, UploadId=upload)

    def uploads(self) -> Iterator[tuple[str, str]]:
        """Names and ids of those that have begun."""
        marks: dict[str, str] = {}
        while True:
            page = self._ask(self._client.list_multipart_uploads, Prefix=self._below, **marks)
            for upload in page.get("Uploads", ()):
                yield upload["Key"].removeprefix(self._below), upload["UploadId"]
            if not page.get("IsTruncated"):
                return
            marks = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def size(self, name: str) -> int:
        """Raises `NotFound`."""
        return self._call(self._client.head_object, name)["ContentLength"]

    def get(self, name: str, *, at: int = 0, tag: str | None = None) -> Body:
        """Read it from byte `at` on; `tag`: only if it is the same still. Raises `NotFound`."""
        more = ({"Range": f"bytes={at}-"} if at else {}) | ({"IfMatch": tag} if tag else {})
        found = self._call(self._client.get_object, name, **more)
        return Body(found["Body"], found["ContentLength"], found["ETag"])

    def load(self, name: str) -> bytes:
        """All of it. Raises `NotFound`."""
        body = self.get(name)
        return self._told(body.stream.read)

    def read(self, body: Body, size: int) -> bytes:
        """Its next bytes."""
        return self._told(lambda: body.stream.read(size))

    def names(self, after: str | None = None) -> tuple[list[str], str | None]:
        """A page of them, and what the next page comes `after`; None: there is none."""
        more = {} if after is None else {"ContinuationToken": after}
        page = self._ask(self._client.list_objects_v2, Prefix=self._below, **more)
        names = [object["Key"].removeprefix(self._below) for object in page.get("Contents", ())]
        return names, page.get("NextContinuationToken")

    def all_names(self) -> Iterator[list[str]]:
        """Page by page."""
        page, after = self.names()
        yield page
        while after is not None:
            page, after = self.names(after)
            yield page

    def delete(self, names: Sequence[str]) -> None:
        """Nothing happens for those that are not there."""
        for start in range(0, len(names), DELETE_MAX):
            keys = [{"Key": self._below + name} for name in names[start : start + DELETE_MAX]]
            said = self._ask(self._client.delete_objects, Delete={"Objects": keys, "Quiet": True})
            if errors := said.get("Errors"):
                raise TooBusy(self._said_of(errors[0].get("Code", "")))

    # Calls

    def _connected(self, endpoint: str | None, region: str | None, tries: int) -> Any:
        config = _library("botocore.config").Config(
            connect_timeout=CONNECT_S_MAX,
            read_timeout=READ_S_MAX,
            max_pool_connections=CONNECTIONS_KEPT_MAX,
            retries={"mode": "standard", "total_max_attempts": tries},
            # Not all stores that speak S3 know the newer checksums. What is sent is signed anyway, or goes by TLS.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        session = _library("botocore.session").Session()
        try:
            return session.create_client("s3", endpoint_url=endpoint, region_name=region, config=config)
        except (self._faults.BotoCoreError, ValueError) as error:
            raise BadRequest(
                f"no client for {self} can be made ({error}): check s3_endpoint, s3_region and AWS's own settings"
            ) from error

    def _call(self, method: Callable[..., Any], name: str, **more: Any) -> Any:
        return self._ask(method, Key=self._below + name, **more)

    def _ask(self, method: Callable[..., Any], **more: Any) -> Any:
        return self._told(lambda: method(Bucket=self._name, **more))

    def _told(self, work: Callable[[], _T]) -> _T:
        """Do it; what goes wrong is said in our words."""
        try:
            return work()
        except self._faults.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if code in _MISSING:
                raise NotFound(f"it is not in {self} ({code})") from error
            raise TooBusy(self._said_of(code, status)) from error
        except (self._faults.NoCredentialsError, self._faults.PartialCredentialsError) as error:
            raise TooBusy(
                f"there are no credentials for {self}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the platform's "
                "environment, or have them in ~/.aws/credentials"
            ) from error
        except (self._faults.BotoCoreError, OSError) as error:
            raise TooBusy(
                f"{self._place} cannot be reached for {self} ({error}): check s3_endpoint and the network"
            ) from error

    def _said_of(self, code: str, status: int | None = None) -> str:
        if code == "NoSuchBucket":
            return f"there is no bucket {self._name} at {self._place}: create it, or set payloads to another"
        if code in _REFUSED:
            return (
                f"{self._place} refuses the platform's credentials for {self} ({code}): check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY or the profile in ~/.aws, and what they are allowed to do"
            )
        if code in _ELSEWHERE:
            return f"the bucket {self._name} is in another region ({code}): set s3_region to it"
        told = code or "no code"
        if status is not None:
            told += f", status {status}"
        return f"{self._place} could not do it for {self} ({told}): see to it, or wait"


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BadRequest("payloads in S3 need a package more: pip install 'runyard[s3]'") from error
