"""Payloads in an object store, beyond what all payloads promise: parts, faults, other platforms and other places."""

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from runyard.adapters import payloads_s3
from runyard.adapters import s3 as adapter
from runyard.adapters.payload_owner import owner_in, place_in
from runyard.adapters.payloads import FolderPayloads
from runyard.adapters.payloads_moved import MovedPayloads
from runyard.adapters.payloads_s3 import PART_BYTES, S3Payloads, is_ref
from runyard.adapters.s3 import Bucket
from runyard.domain.errors import BadRequest, Conflict, NotFound, TooBusy
from runyard.domain.job import JobId
from tests.payload_kit import DATA, ENDPOINT, JOB, keep, read
from tests.s3_kit import BUCKET, Environ, Fault, ObjectStore, Start, s3_payloads

MIB = 1 << 20
PIECE_BYTES = MIB // 8
LARGE = b"".join(b"%08d" % number for number in range(12 * MIB // 8))


def refusing(status: int, code: str, *, method: str = "") -> Fault:
    """Answers so to this method, or to all."""

    def fault(environ: Environ, start: Start, answer: Callable[[], Iterable[bytes]]) -> Iterable[bytes] | None:
        if method and environ["REQUEST_METHOD"] != method:
            return None
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start(f"{status} No", [("Content-Type", "application/xml")])
        return [f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()]

    return fault


async def keep_large(payloads: S3Payloads) -> Any:
    return await keep(payloads, *(LARGE[at : at + PIECE_BYTES] for at in range(0, len(LARGE), PIECE_BYTES)))


# Uploads


async def test_what_is_large_goes_out_in_parts_as_it_comes(s3: ObjectStore) -> None:
    payloads = s3_payloads(s3)
    draft = await payloads.begin(ENDPOINT, JOB)
    sent: list[int] = []
    for at in range(0, len(LARGE), PIECE_BYTES):
        await draft.write(LARGE[at : at + PIECE_BYTES])
        sent.append(sum("partNumber" in asked for asked in s3.asked))
    assert {0, 1, 2} == set(sent)
    assert sent.index(1) * PIECE_BYTES < PART_BYTES + 2 * PIECE_BYTES
    payload = await draft.keep()

    assert 3 == sum("partNumber" in asked for asked in s3.asked)
    assert len(LARGE) == payload.size
    assert [] == s3.uploads()
    assert LARGE == await payloads_bytes(payloads, payload)


async def payloads_bytes(payloads: S3Payloads, payload: Any) -> bytes:
    reading = await payloads.open(payload)
    pieces = [piece async for piece in _pieces(reading)]
    await reading.close()
    return b"".join(pieces)


async def _pieces(reading: Any) -> Any:
    while piece := await reading.read(MIB):
        yield piece


async def test_parts_grow_so_that_they_suffice_for_any_object() -> None:
    size, parts = 0, 0
    while parts < payloads_s3.PARTS_MAX:
        size += payloads_s3.part_bytes(size)
        parts += 1

    assert size > 5 << 40


async def test_a_draft_that_is_dropped_leaves_no_upload(s3: ObjectStore) -> None:
    payloads = s3_payloads(s3)
    draft = await payloads.begin(ENDPOINT, JOB)
    await draft.write(LARGE)
    await draft.write(b"more")
    assert 1 == len(s3.uploads())
    await draft.drop()

    assert [] == s3.uploads()
    assert [] == await payloads.kept()


async def test_what_a_platform_that_died_had_not_finished_is_aborted_at_the_start(s3: ObjectStore) -> None:
    draft = await s3_payloads(s3).begin(ENDPOINT, JOB)
    await draft.write(LARGE)
    await draft.write(b"more")
    for key in ("here/of another program", "elsewhere"):
        s3.client.create_multipart_upload(Bucket=BUCKET, Key=key)
    s3_payloads(s3)

    assert {"here/of another program", "elsewhere"} == set(s3.uploads())


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_an_upload_that_somebody_aborts_is_spoiled(s3: ObjectStore, method: str) -> None:
    draft = await s3_payloads(s3).begin(ENDPOINT, JOB)
    await draft.write(LARGE)
    await draft.write(b"more")
    s3.fault = refusing(404, "NoSuchUpload", method=method)

    with pytest.raises(TooBusy, match="was aborted"):
        await draft.keep()
    assert draft.spoiled
    await draft.drop()


async def test_one_that_is_complete_though_the_answer_was_lost_is_kept(s3: ObjectStore) -> None:
    payloads = s3_payloads(s3)
    draft = await payloads.begin(ENDPOINT, JOB)
    await draft.write(LARGE)
    await draft.write(b"more")

    def lose_the_answer(environ: Environ, start: Start, answer: Callable[[], Iterable[bytes]]) -> Any:
        if environ["REQUEST_METHOD"] == "POST":
            b"".join(answer())
            start("500 No", [])
            return [b""]
        return None

    s3.fault = lose_the_answer
    with pytest.raises(TooBusy):
        await draft.keep()
    s3.fault = refusing(404, "NoSuchUpload", method="POST")
    payload = await draft.keep()

    assert LARGE + b"more" == await payloads_bytes(payloads, payload)


# Faults


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (refusing(503, "SlowDown"), "could not do it .*SlowDown, status 503"),
        (refusing(500, "InternalError"), "could not do it .*InternalError, status 500"),
        (refusing(403, "InvalidAccessKeyId"), "refuses the platform's credentials .*check AWS_ACCESS_KEY_ID"),
        (refusing(404, "NoSuchBucket"), "there is no bucket results .*create it, or set payloads"),
        (refusing(400, "AuthorizationHeaderMalformed"), "in another region .*set s3_region"),
    ],
)
async def test_what_the_store_refuses_is_told_and_can_be_tried_again(s3: ObjectStore, fault: Fault, told: str) -> None:
    payloads = s3_payloads(s3)
    old = await keep(payloads, DATA)
    draft, small = await payloads.begin(ENDPOINT, JOB), await payloads.begin(ENDPOINT, JOB)
    await draft.write(LARGE)
    await small.write(b"small")
    s3.fault = fault
    for refused in (
        lambda: draft.write(b"more"),
        small.keep,
        lambda: payloads.open(old),
        payloads.kept,
        lambda: payloads.forget([old.ref]),
    ):
        with pytest.raises(TooBusy, match=told):
            await refused()
    assert (False, False) == (draft.spoiled, small.spoiled)
    s3.fault = None
    await draft.write(b"more")

    assert b"small" == await read(payloads, await small.keep())
    assert LARGE + b"more" == await payloads_bytes(payloads, await draft.keep())


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (refusing(403, "AccessDenied", method="PUT"), "refuses the platform's credentials"),
        (refusing(403, "AccessDenied", method="GET"), "refuses the platform's credentials"),
        (refusing(503, "SlowDown"), "SlowDown"),
    ],
    ids=["read only", "write only", "overloaded"],
)
def test_a_start_finds_out_what_will_not_work(s3: ObjectStore, fault: Fault, told: str) -> None:
    s3.fault = fault

    with pytest.raises(TooBusy, match=told):
        s3_payloads(s3)


def test_a_start_without_the_bucket_says_so(s3: ObjectStore) -> None:
    with pytest.raises(TooBusy, match="there is no bucket nowhere"):
        s3_payloads(s3, bucket="nowhere")


def test_a_start_without_credentials_says_which(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")

    with pytest.raises(TooBusy, match=r"no credentials .*set AWS_ACCESS_KEY_ID"):
        s3_payloads(s3)


def test_a_start_where_nobody_listens_says_so(s3: ObjectStore) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(TooBusy, match=rf"{endpoint} cannot be reached .*check s3_endpoint"):
            S3Payloads(Bucket(BUCKET, "", endpoint=endpoint, tries=1), "mine")


def test_an_endpoint_that_is_none_is_told(s3: ObjectStore) -> None:
    with pytest.raises(BadRequest, match="check s3_endpoint"):
        Bucket(BUCKET, "", endpoint="not an address")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.exceptions", None)

    with pytest.raises(BadRequest, match=r"pip install 'runyard\[s3\]'"):
        Bucket(BUCKET, "")


async def test_a_store_that_does_not_answer_is_not_waited_for_long(
    s3: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "READ_S_MAX", 0.1)
    payloads, over = s3_payloads(s3), threading.Event()

    def hang(environ: Environ, start: Start, answer: Callable[[], Iterable[bytes]]) -> None:
        over.wait()

    s3.fault = hang
    try:
        with pytest.raises(TooBusy, match=r"cannot be reached .*timeout"):
            await payloads.kept()
    finally:
        over.set()


async def test_the_event_loop_goes_on_while_the_store_is_slow(s3: ObjectStore) -> None:
    payloads = s3_payloads(s3)
    arrived, over = threading.Event(), threading.Event()

    def slow(environ: Environ, start: Start, answer: Callable[[], Iterable[bytes]]) -> None:
        arrived.set()
        over.wait()

    s3.fault = slow
    keeping = asyncio.create_task(keep(payloads, DATA))
    await asyncio.to_thread(arrived.wait)
    assert not keeping.done()
    over.set()

    assert DATA == await read(payloads, await keeping)


# Reading


def broken_after(size: int) -> Fault:
    """Lets the first answer to a GET of an object break off after so many bytes."""
    broken: list[int] = []

    def fault(environ: Environ, start: Start, answer: Callable[[], Iterable[bytes]]) -> Iterable[bytes] | None:
        if environ["REQUEST_METHOD"] != "GET" or broken:
            return None
        broken.append(1)
        body = b"".join(answer())
        return iter([body[:size]])

    return fault


async def test_a_reading_whose_connection_breaks_goes_on_where_it_was(s3: ObjectStore) -> None:
    payloads = s3_payloads(s3)
    payload = await keep_large(payloads)
    s3.fault = broken_after(7 * MIB)

    assert LARGE == await payloads_bytes(payloads, payload)


async def test_what_is_forgotten_amid_a_reading_is_not_taken_for_whole(s3: ObjectStore) -> None:
    payloads = s3_payloads(s3)
    payload = await keep_large(payloads)
    s3.fault = broken_after(7 * MIB)
    reading = await payloads.open(payload)
    assert LARGE[:MIB] == await reading.read(MIB)
    await payloads.forget([payload.ref])

    with pytest.raises(NotFound):
        [piece async for piece in _pieces(reading)]
    await reading.close()


# Many


async def test_many_are_listed_page_by_page_and_forgotten_in_bulk(
    s3: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")  # Read by the server, which is in this process.
    monkeypatch.setattr(adapter, "DELETE_MAX", 4)
    payloads = s3_payloads(s3)
    payload = [await keep(payloads, b"1", job_id=JobId(f"{number}")) for number in range(10)]
    s3.asked.clear()
    kept = await payloads.kept()
    assert {(each.ref, f"{number}") for number, each in enumerate(payload)} == {(k.ref, k.job_id) for k in kept}
    assert 4 == len(s3.asked), "ten and the owner's are four pages"
    s3.asked.clear()
    await payloads.forget([each.ref for each in payload])

    assert ["POST delete"] * 3 == s3.asked
    assert [] == await payloads.kept()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("<Code>AccessDenied</Code>", r"refuses the platform's credentials"),
        ("<Code>InternalError</Code>", r"could not do it .*\(InternalError\)"),
        ("", r"could not do it .*\(no code\)"),
    ],
)
async def test_what_was_not_forgotten_though_the_rest_was_is_told(s3: ObjectStore, error: str, told: str) -> None:
    payloads = s3_payloads(s3)
    payload = await keep(payloads, DATA)

    def partly(environ: Environ, start: Start, answer: Callable[[], Iterable[bytes]]) -> Iterable[bytes]:
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start("200 OK", [("Content-Type", "application/xml")])
        return [f"<DeleteResult><Error><Key>a</Key>{error}</Error></DeleteResult>".encode()]

    s3.fault = partly
    with pytest.raises(TooBusy, match=told):
        await payloads.forget([payload.ref])


# Whose it is, and where


async def test_a_prefix_is_one_platforms_until_somebody_says_otherwise(s3: ObjectStore) -> None:
    payload = await keep(s3_payloads(s3), DATA)
    with pytest.raises(Conflict, match=r"belongs to another platform.*delete s3://results/here/owner"):
        s3_payloads(s3, owner="another", emptied=True)
    assert DATA == await read(s3_payloads(s3), payload), "it comes back"
    assert [] == await s3_payloads(s3, owner="another", prefix="there").kept()
    s3.client.delete_object(Bucket=BUCKET, Key="here/owner")

    assert DATA == await read(s3_payloads(s3, owner="another"), payload)


def test_a_data_directory_keeps_its_name_and_notes_where_it_was_last(tmp_path: Path) -> None:
    assert place_in(tmp_path) is None
    name = owner_in(tmp_path, "s3://results/here/")

    assert (name, name) == (owner_in(tmp_path, "s3://results/there/"), owner_in(tmp_path, "s3://results/there/"))
    assert "s3://results/there/" == place_in(tmp_path)
    assert name != owner_in(tmp_path / "another", "s3://results/here/")


async def test_a_bucket_is_emptied_of_payloads_and_of_nothing_else(s3: ObjectStore) -> None:
    s3.client.put_object(Bucket=BUCKET, Key="a,b", Body=b"")
    s3.client.put_object(Bucket=BUCKET, Key="other/a,b,0123456789abcdef", Body=b"")
    await keep(s3_payloads(s3, prefix=""), DATA)
    s3_payloads(s3, prefix="", emptied=True)

    assert {"owner", "a,b", "other/a,b,0123456789abcdef"} == set(s3.names())


@pytest.mark.parametrize(
    "ref",
    ["a,b,0123456789abcdef", "s3://results/old/a,b,0123456789abcdef", "s3://results/here/owner", "s3://results/here/"],
)
async def test_what_lies_elsewhere_is_said_to(s3: ObjectStore, ref: str) -> None:
    payloads = s3_payloads(s3)
    payload = await keep(payloads, b"1")

    with pytest.raises(NotFound, match=r"lies at .*set it back"):
        await payloads.open(payload._replace(ref=ref))


async def test_what_was_in_the_folder_is_read_there_until_it_is_forgotten(s3: ObjectStore, tmp_path: Path) -> None:
    old = await keep(FolderPayloads(tmp_path), DATA)
    payloads = MovedPayloads(s3_payloads(s3), FolderPayloads(tmp_path), is_ref)
    new = await keep(payloads, b"new")

    assert (DATA, b"new") == (await read(payloads, old), await read(payloads, new))
    assert {old.ref, new.ref} == {kept.ref for kept in await payloads.kept()}
    assert new.ref == f"s3://{BUCKET}/{s3.names()[0]}"
    await payloads.forget([old.ref, new.ref])
    assert [] == await payloads.kept()
    assert [] == await FolderPayloads(tmp_path).kept()


async def test_a_platform_that_has_moved_back_says_where_it_lies(s3: ObjectStore, tmp_path: Path) -> None:
    payload = await keep(s3_payloads(s3), DATA)

    with pytest.raises(NotFound, match=f"lies at {payload.ref}.*set payloads to where that is"):
        await FolderPayloads(tmp_path).open(payload)
