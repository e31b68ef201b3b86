"""Payloads that come in at one place, while those of before are at another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from runyard.adapters.payload_owner import owner_in
from runyard.adapters.payloads import FolderPayloads
from runyard.adapters.payloads_s3 import S3Payloads, is_ref
from runyard.adapters.s3 import Bucket
from runyard.domain.job import EndpointId, JobId
from runyard.domain.payload import Spilled
from runyard.ports.payloads import Draft, Kept, Payloads, Reading


class MovedPayloads:
    """What comes in goes to `now`; what was in `before` is read there, until no job names it. `is_now`: a ref of `now`."""

    def __init__(self, now: Payloads, before: Payloads, is_now: Callable[[str], bool]) -> None:
        self._now = now
        self._before = before
        self._is_now = is_now

    async def begin(self, endpoint_id: EndpointId, job_id: JobId) -> Draft:
        return await self._now.begin(endpoint_id, job_id)

    async def open(self, payload: Spilled) -> Reading:
        return await (self._now if self._is_now(payload.ref) else self._before).open(payload)

    async def kept(self) -> list[Kept]:
        return [*await self._before.kept(), *await self._now.kept()]

    async def forget(self, refs: Sequence[str]) -> None:
        await self._before.forget([ref for ref in refs if not self._is_now(ref)])
        await self._now.forget([ref for ref in refs if self._is_now(ref)])


def payloads_of(root: Path, bucket: Bucket | None, *, synced: bool, emptied: bool) -> Payloads:
    """Of a data directory: in its folder, or, where there is a bucket, there, and before in its folder."""
    folder = FolderPayloads(root / "payloads", synced=synced, emptied=emptied)
    if bucket is None:
        return folder
    return MovedPayloads(S3Payloads(bucket, owner_in(root, str(bucket)), emptied=emptied), folder, is_ref)
