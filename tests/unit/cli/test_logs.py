"""Following a log over connections that break."""

import json
from collections.abc import Iterator

import click
import httpx2
import pytest

from runyard.cli.logs import RECONNECT_S, following, line_text
from runyard.cli.main import main
from runyard.client.control import Control
from runyard.client.errors import ApiError, ClientError
from runyard.client.settings import Address
from runyard.client.sync import Connection
from runyard.wire.control import LogEvent


def event(id: str, line: str) -> str:
    data = {"ts": "t", "source": "container", "line": line, "workerId": "w"}
    return f"id: {id}\ndata: {json.dumps(data)}\n\n"


class Broken(httpx2.SyncByteStream):
    """Some events, and then the connection is gone."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __iter__(self) -> Iterator[bytes]:
        yield self._text.encode()
        raise httpx2.ReadError("gone")


SSE = {"content-type": "text/event-stream; charset=utf-8"}
GONE = httpx2.Response(404, json={"title": "Not Found", "detail": "deleted"})


def follow(*answers: httpx2.Response | Exception) -> tuple[list[str], list[str | None], list[float], Exception]:
    """The lines that were read, the ids they were asked after, the pauses, and how it ended."""
    script, asked, pauses, lines = iter(answers), [], [], []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.headers.get("last-event-id"))
        found = next(script)
        if isinstance(found, Exception):
            raise found
        return found

    connection = Connection(Address("http://yard.test", "key"), httpx2.MockTransport(answer))
    with click.Context(main, obj=Control(connection)), pytest.raises(ClientError) as end:
        lines.extend(event.line for event in following("one", {"tail": "5"}, pauses.append))
    return lines, asked, pauses, end.value


def test_a_follower_goes_on_where_it_was() -> None:
    lines, asked, pauses, end = follow(
        httpx2.Response(200, headers=SSE, text=event("1", "a") + ": nothing new\n\n" + event("2", "b")),
        httpx2.ConnectError("restarting"),
        httpx2.Response(200, headers=SSE, stream=Broken(event("3", "c"))),
        httpx2.Response(200, headers=SSE, text=""),
        GONE,
    )

    assert lines == ["a", "b", "c"]
    assert asked == [None, "2", "2", "3", "3"]
    assert pauses == [RECONNECT_S] * 4
    assert isinstance(end, ApiError)


@pytest.mark.parametrize("answer", [httpx2.ConnectError("refused"), GONE], ids=["refused", "gone"])
def test_a_follower_that_never_read_anything_ends_at_once(answer: httpx2.Response | Exception) -> None:
    lines, asked, pauses, _ = follow(answer)

    assert (lines, asked, pauses) == ([], [None], [])


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain", "plain"),
        ('{"requestId": "j", "message": "Started.", "level": "INFO"}', "INFO j Started."),
        ('{"requestId": null, "message": "Jobs in queue: 1", "level": "INFO"}', "INFO Jobs in queue: 1"),
        ('{"requestId": cut', '{"requestId": cut'),
    ],
)
def test_a_line_of_the_sdk_is_shown_as_people_say_it(line: str, shown: str) -> None:
    assert line_text(LogEvent("t", "container", line, "w")) == f"t  w  {shown}"
