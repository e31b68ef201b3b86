import json
from datetime import timedelta

import pytest

from runyard.domain.job import EndpointId, JobId, WorkerId
from runyard.ports.logs import Cursor, LogQuery
from runyard.ports.runtime import LogSource
from runyard.services.logs import LINE_LENGTH_MAX, READ_MAX, Follower, Logs
from tests.control_doubles import START, SetClock

ENDPOINT = EndpointId("one")
WORKER = WorkerId("worker")
ALL = LogQuery(endpoint_id=ENDPOINT)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def logs(clock: SetClock) -> Logs:
    return Logs(clock, lines_max=10)


def say(logs: Logs, *lines: str, worker: str = "worker", **about: object) -> None:
    for line in lines:
        logs.append(WorkerId(worker), ENDPOINT, line, **about)


async def texts(follower: Follower) -> list[str]:
    return [line.line for line in await follower.read()]


def test_the_last_lines_of_a_worker_stay(logs: Logs) -> None:
    say(logs, *map(str, range(12)))

    assert [line.line for line in logs.tail(WORKER, 3)] == ["9", "10", "11"]
    assert [line.line for line in logs.tail(WORKER, 99)] == list(map(str, range(2, 12)))
    assert logs.tail(WORKER, 0) == logs.tail(WorkerId("unknown"), 5) == []


def test_a_line_says_when_by_whom_and_about_what(logs: Logs, clock: SetClock) -> None:
    clock.at = START + 0.12345
    say(logs, "hello", source=LogSource.SYSTEM, job_id="job")

    [line] = logs.tail(WORKER, 1)

    assert (line.ts, line.seq, line.source, line.worker_id, line.job_id) == (START + 0.123, 1, "system", WORKER, "job")


def test_time_never_runs_backwards(logs: Logs, clock: SetClock) -> None:
    say(logs, "first")
    clock.at -= timedelta(hours=1).total_seconds()
    say(logs, "second")

    first, second = logs.tail(WORKER, 2)

    assert first.cursor < second.cursor


@pytest.mark.row("F131")
@pytest.mark.parametrize(
    ("line", "job"),
    [
        (json.dumps({"requestId": "named", "message": "Started.", "level": "INFO"}), "named"),
        (json.dumps({"requestId": None, "message": "Jobs in queue: 1", "level": "INFO"}), None),
        (json.dumps({"requestId": None, "message": "boom", "level": "ERROR"}), "held"),
        ("print", "held"),
        ('{"requestId": "cut off', "held"),
        ('{"requestId": ' + "[" * 100_000, "held"),
        ('{"requestId": 7}', None),
    ],
    ids=["named", "about none", "an error about none", "plain", "broken", "deep", "not a string"],
)
def test_an_sdk_line_names_its_job_and_any_other_is_about_the_job_held(logs: Logs, line: str, job: str | None) -> None:
    say(logs, line, job_id="held")

    assert logs.tail(WORKER, 1)[0].job_id == job


def test_lines_are_cut_and_cleaned(logs: Logs) -> None:
    say(logs, "x" * (LINE_LENGTH_MAX + 5), "lone \ud800 surrogate")

    long, odd = logs.tail(WORKER, 2)

    assert long.line == "x" * LINE_LENGTH_MAX + " [5 more characters]"
    assert odd.line == "lone ? surrogate"


async def test_when_memory_is_wanted_the_first_to_stop_is_forgotten_first(clock: SetClock) -> None:
    logs = Logs(clock, bytes_max=11_000)
    for worker in ("alive", "old", "young"):
        say(logs, "x" * 2_000, worker=worker)
    for worker in ("old", "young", "unknown"):
        logs.worker_stopped(WorkerId(worker))
    say(logs, *["x" * 2_000] * 2, worker="alive")

    assert not await logs.knows(ENDPOINT, WorkerId("old"))
    assert await logs.knows(ENDPOINT, WorkerId("young"))

    say(logs, *["x" * 2_000] * 20, "last", worker="alive")

    assert not await logs.knows(ENDPOINT, WorkerId("young"))
    assert logs.tail(WorkerId("alive"), 1)[0].line == "last"
    assert 1 < len(logs.tail(WorkerId("alive"), 99)) < 6


async def test_a_worker_is_known_to_its_own_endpoint_only(logs: Logs) -> None:
    say(logs, "x")

    assert await logs.knows(ENDPOINT, WORKER)
    assert not await logs.knows(EndpointId("other"), WORKER)


async def test_a_reader_begins_some_lines_back_and_goes_on(logs: Logs) -> None:
    say(logs, "a", worker="one")
    say(logs, "b", "c", worker="two")

    with logs.follow(ALL, tail=2) as follower:
        say(logs, "d", worker="one")

        assert await texts(follower) == ["b", "c"]
        assert await texts(follower) == ["d"]
        assert await texts(follower) == []
        say(logs, "e", worker="three")
        assert await texts(follower) == ["e"]


async def test_a_reader_that_wants_no_history_gets_none(logs: Logs) -> None:
    say(logs, "old")

    with logs.follow(ALL, tail=0) as follower:
        say(logs, "new")

        assert await texts(follower) == ["new"]


async def test_a_reader_comes_back_without_gap_or_repeat(logs: Logs) -> None:
    say(logs, "a", "b", "c")
    second = logs.tail(WORKER, 2)[0]

    with logs.follow(ALL, after=second.cursor, since=0, tail=0) as follower:
        assert await texts(follower) == ["c"]


async def test_a_reader_may_begin_at_a_time(logs: Logs, clock: SetClock) -> None:
    say(logs, "before")
    clock.at += 1
    say(logs, "then")
    clock.at += 1
    say(logs, "later")

    with logs.follow(ALL, since=START + 1, tail=0) as follower:
        assert await texts(follower) == ["then", "later"]


def test_a_reader_chooses_worker_job_and_source(logs: Logs) -> None:
    say(logs, "mine", job_id="job")
    say(logs, "system", source=LogSource.SYSTEM)
    say(logs, "other's", worker="other")
    found = {
        name: [line.line for line in logs.after(LogQuery(endpoint_id=ENDPOINT, **query), Cursor(0, 0))]
        for name, query in {
            "worker": {"worker_id": "other"},
            "job": {"job_id": "job"},
            "source": {"source": LogSource.SYSTEM},
            "nobody": {"worker_id": "unknown"},
        }.items()
    }

    assert found == {"worker": ["other's"], "job": ["mine"], "source": ["system"], "nobody": []}
    assert logs.after(LogQuery(endpoint_id=EndpointId("other"), worker_id=WORKER), Cursor(0, 0)) == []


async def test_a_reader_that_is_too_slow_is_told_so(logs: Logs) -> None:
    with logs.follow(ALL, tail=0) as follower:
        say(logs, *map(str, range(15)))
        lines = await follower.read()

    assert [line.line for line in lines] == ["[older lines of this worker are gone]", *map(str, range(5, 15))]
    assert lines[0].cursor < lines[1].cursor
    assert lines[0].source == "system"


async def test_lines_that_a_reader_does_not_want_may_go_unmentioned(logs: Logs) -> None:
    with logs.follow(LogQuery(endpoint_id=ENDPOINT, job_id="job"), tail=0) as follower:
        say(logs, *map(str, range(15)))
        say(logs, "wanted", job_id="job")

        assert await texts(follower) == ["wanted"]


async def test_a_reader_gets_many_lines_in_bites_and_misses_none(clock: SetClock) -> None:
    logs = Logs(clock)
    count = 2 * READ_MAX + 3
    with logs.follow(ALL, tail=0) as follower:
        for number in range(count):
            say(logs, str(number), worker=f"worker-{number % 3}")
        bites = [await texts(follower) for _ in range(4)]

    assert [len(bite) for bite in bites] == [READ_MAX, READ_MAX, 3, 0]
    assert [line for bite in bites for line in bite] == list(map(str, range(count)))


async def test_gaps_of_several_workers_do_not_hide_lines(clock: SetClock) -> None:
    logs = Logs(clock, lines_max=READ_MAX)
    with logs.follow(ALL, tail=0) as follower:
        say(logs, *[f"a{n}" for n in range(READ_MAX + 1)], worker="a")
        say(logs, *[f"b{n}" for n in range(READ_MAX + 1)], worker="b")
        read = [line for _ in range(4) for line in await texts(follower)]

    gone = "[older lines of this worker are gone]"
    expected = [gone, *[f"a{n + 1}" for n in range(READ_MAX)], gone, *[f"b{n + 1}" for n in range(READ_MAX)]]
    assert read == expected


@pytest.mark.looptime
async def test_waiting_ends_with_a_line_or_with_time(logs: Logs, looptime: object) -> None:
    query = LogQuery(endpoint_id=ENDPOINT, worker_id=WORKER)
    with logs.follow(query, tail=0) as follower:
        await follower.wait(15)
        assert looptime == 15

        say(logs, "other", worker="other")
        await follower.wait(15)
        assert looptime == 30

        say(logs, "mine")
        await follower.wait(15)
        assert looptime == 30


async def test_readers_end_with_their_endpoint_and_with_the_platform(logs: Logs) -> None:
    say(logs, "x")
    with logs.follow(ALL) as follower, logs.follow(LogQuery(endpoint_id=EndpointId("other"))) as other:
        logs.forget_endpoint(ENDPOINT)
        await follower.wait(1000)

        assert follower.ended
        assert not other.ended
        assert not await logs.knows(ENDPOINT, WORKER)
        logs.close()
        assert other.ended


async def test_another_process_goes_on_with_the_lines_of_the_one_before() -> None:
    first, second = Logs(SetClock()), Logs(SetClock(START - 60))
    for number in range(3):
        say(first, f"line {number}", job_id=JobId("j"))
    lines = first.tail(WORKER, 9)

    second.unpack(first.pack())
    say(second, "line 3")

    assert lines == second.tail(WORKER, 9)[:3]
    with second.follow(ALL, after=lines[-1].cursor) as follower:
        assert ["line 3"] == await texts(follower)


def test_lines_that_were_handed_over_go_first_unless_their_worker_goes_on() -> None:
    first = Logs(SetClock())
    for worker in ("back", "gone"):
        say(first, *["x" * 100] * 5, worker=worker)

    second = Logs(SetClock(), bytes_max=5500)
    second.unpack(first.pack())
    second.worker_goes_on(WorkerId("back"))
    say(second, *["x" * 100] * 5, worker="new")

    assert [0, 5] == [len(second.tail(WorkerId(worker), 9)) for worker in ("gone", "back")]
