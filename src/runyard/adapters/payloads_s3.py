"""Payloads as objects of a bucket.

1. An object is there as a whole or not at all. What is large is uploaded in parts as it comes, and becomes an object when
   the parts are declared complete; a draft holds one part in memory.
2. A draft that is dropped aborts its upload. Those of a platform that died are aborted at the next start.
3. A prefix is one platform's: what its jobs do not name it deletes, which would be the other's results. So the prefix has
   an object that says whose it is, and it is written at each start, which also shows whether anything can be.
4. A ref is the object's address. So it says where it is even when the platform has moved to another place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from runyard.adapters.payload_names import job_in, name_for
from runyard.adapters.s3 import SCHEME, Body, Bucket
from runyard.domain.errors import Conflict, NotFound, TooBusy
from runyard.domain.job import EndpointId, JobId
from runyard.domain.payload import Spilled
from runyard.ports.payloads import Kept

THREADS = 16
"""As many calls are under way at once."""
PART_BYTES = 5 << 20
"""The least that S3 takes as a part that is not the last."""
PARTS_MAX = 10_000
OWNER = "owner"
_T = TypeVar("_T")

log = logging.getLogger(__name__)


class S3Payloads:
    """One object for each, below the bucket's prefix. `emptied`: nothing of before is wanted."""

    def __init__(self, bucket: Bucket, owner: str, *, emptied: bool = False) -> None:
        """Raises `TooBusy` when the bucket cannot be used, `Conflict` when the prefix is another's than `owner`'s."""
        self._bucket = bucket
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="payloads-s3")
        self._claim(owner)
        for name, upload in bucket.uploads():
            if job_in(name) is not None:
                bucket.abort(name, upload)
        if emptied:
            for page in bucket.all_names():
                bucket.delete([name for name in page if job_in(name) is not None])

    async def begin(self, endpoint_id: EndpointId, job_id: JobId) -> S3Draft:
        return S3Draft(self, self._bucket, name_for(endpoint_id, job_id))

    async def open(self, payload: Spilled) -> S3Reading:
        name = self._name(payload.ref)
        try:
            body = await self.aside(lambda: self._bucket.get(name))
        except NotFound as error:
            raise NotFound(_missing(payload)) from error
        if body.size != payload.size:
            await self.aside(body.stream.close)
            raise NotFound(_missing(payload))
        return S3Reading(self, self._bucket, name, body)

    async def kept(self) -> list[Kept]:
        page, after = await self.aside(self._bucket.names)
        names = page
        while after is not None:
            page, after = await self.aside(lambda after=after: self._bucket.names(after))
            names += page
        return [Kept(self.ref(name), *job) for name in names if (job := job_in(name)) is not None]

    async def forget(self, refs: Sequence[str]) -> None:
        names = [self._name(ref) for ref in refs]
        await self.aside(lambda: self._bucket.delete(names))

    async def aside(self, work: Callable[[], _T]) -> _T:
        """Do what waits for the network on a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def ref(self, name: str) -> str:
        return f"{self._bucket}{name}"

    def _name(self, ref: str) -> str:
        name = ref.removeprefix(str(self._bucket))
        if name == ref or job_in(name) is None:
            raise NotFound(
                f"a payload lies at {ref}, and the setting payloads is {self._bucket}: set it back to read that"
            )
        return name

    def _claim(self, owner: str) -> None:
        try:
            found = self._bucket.load(OWNER).decode(errors="replace")
        except NotFound:
            found = owner
        if found != owner:
            raise Conflict(
                f"{self._bucket} belongs to another platform, and each deletes what its own jobs do not name: set payloads "
                f"to another prefix, or, if that platform is gone for good, delete {self.ref(OWNER)}"
            )
        self._bucket.put(OWNER, owner.encode())


class S3Draft:
    """An upload, or what may become one."""

    spoiled = False

    def __init__(self, payloads: S3Payloads, bucket: Bucket, name: str) -> None:
        self._payloads = payloads
        self._bucket = bucket
        self._name = name
        self._part = bytearray()
        self._size = 0
        self._upload: str | None = None
        """None while nothing has been sent."""
        self._tags: list[str] = []
        """Of the parts that have been."""

    async def write(self, piece: bytes) -> None:
        if len(self._part) >= part_bytes(self._size):
            await self._payloads.aside(self._send)
        self._part += piece
        self._size += len(piece)

    async def keep(self) -> Spilled:
        await self._payloads.aside(self._finish)
        return Spilled(self._payloads.ref(self._name), self._size)

    async def drop(self) -> None:
        if self._upload is not None:
            await self._payloads.aside(self._discard)

    def _send(self) -> None:
        if self._upload is None:
            self._upload = self._bucket.begin(self._name)
        try:
            self._tags.append(self._bucket.put_part(self._name, self._upload, len(self._tags) + 1, self._part))
        except NotFound as error:
            raise self._aborted() from error
        self._part = bytearray()

    def _finish(self) -> None:
        if self._upload is None:
            self._bucket.put(self._name, self._part)
        else:
            if self._part:
                self._send()
            self._complete(self._upload)
        self._upload, self._part = None, bytearray()

    def _complete(self, upload: str) -> None:
        try:
            self._bucket.complete(self._name, upload, self._tags)
        except NotFound as error:
            # It has been completed before and the answer was lost, unless somebody else has aborted it.
            if not self._is_whole():
                raise self._aborted() from error

    def _aborted(self) -> TooBusy:
        self.spoiled = True
        return TooBusy(f"the upload to {self._bucket} was aborted by somebody else; send it again")

    def _is_whole(self) -> bool:
        try:
            return self._bucket.size(self._name) == self._size
        except NotFound:
            return False

    def _discard(self) -> None:
        upload, self._upload, self._part = self._upload, None, bytearray()
        try:
            if upload is not None:
                self._bucket.abort(self._name, upload)
        except TooBusy as error:
            log.warning("an upload that nobody wants is left until the next start: %s", error)


class S3Reading:
    """An object that is being read. When the connection is lost it is read on from there, if it is there still."""

    def __init__(self, payloads: S3Payloads, bucket: Bucket, name: str, body: Body) -> None:
        self._payloads = payloads
        self._bucket = bucket
        self._name = name
        self._body = body
        self._at = 0

    async def read(self, size: int) -> bytes:
        return await self._payloads.aside(lambda: self._next(size))

    async def close(self) -> None:
        await self._payloads.aside(self._body.stream.close)

    def _next(self, size: int) -> bytes:
        try:
            data = self._bucket.read(self._body, size)
        except TooBusy:
            self._body.stream.close()
            self._body = self._bucket.get(self._name, at=self._at, tag=self._body.tag)
            data = self._bucket.read(self._body, size)
        self._at += len(data)
        return data


def part_bytes(size: int) -> int:
    """Of the next part: in proportion to what there is already, so that the parts suffice for the largest of objects."""
    return PART_BYTES + size * 10 // PARTS_MAX


def is_ref(ref: str) -> bool:
    """Whether it leads to a bucket."""
    return ref.startswith(SCHEME)


def _missing(payload: Spilled) -> str:
    return f"a payload of {payload.size} bytes is not at {payload.ref} any more"
