"""Settings from file, environment and flags: what a limit may look like, and who wins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from runyard.config import Settings, load
from runyard.domain.errors import BadRequest
from runyard.domain.limits import Limit
from runyard.domain.terms import DEFAULT_TERMS, QUEUE, JobTerms


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "runyard.toml"


def settings(file: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    file.write_text(text)
    return load({}, environ or {}, file)


def test_limits_are_off_by_default_and_then_there_are_none(file: Path) -> None:
    assert {} == settings(file, "").rate_limits
    assert {} == settings(file, "limits_run = { requests = 5 }").rate_limits


@pytest.mark.row("F037", "F040")
def test_the_preset_has_the_numbers_of_the_hosted_service(file: Path) -> None:
    reading = Limit(requests=2000, window_s=10, in_flight=400, per_worker=400)

    assert {
        "run": Limit(requests=1000, window_s=10, in_flight=200, per_worker=200),
        "runsync": reading,
        "status": reading,
        "stream": reading,
        "openai": reading,
        "cancel": Limit(requests=100, window_s=10, in_flight=20, per_worker=20),
        "purge-queue": Limit(requests=2, window_s=10, in_flight=0, per_worker=0),
    } == settings(file, 'limits = "runpod"').rate_limits


@pytest.mark.parametrize(
    "text", ["limits_run = { requests = 5, window_s = 0.5 }", "[limits_run]\nrequests = 5\nwindow_s = 0.5"]
)
def test_a_limit_is_a_table_and_what_it_does_not_name_keeps_its_default(file: Path, text: str) -> None:
    assert Limit(requests=5, window_s=0.5, in_flight=200, per_worker=200) == settings(file, text).limits_run


def test_the_environment_wins_and_is_written_as_the_file_is(file: Path) -> None:
    environ = {"RUNYARD_LIMITS_RUN": "{ in_flight = 7 }", "RUNYARD_LIMITS": "runpod"}
    loaded = settings(file, "limits_run = { requests = 5 }", environ)

    assert ("runpod", Limit(requests=1000, in_flight=7, per_worker=200)) == (loaded.limits, loaded.limits_run)


def test_a_limit_reads_as_it_is_written(file: Path) -> None:
    limit = Limit(requests=5, window_s=0.5, in_flight=6, per_worker=7)

    assert limit == settings(file, f"limits_run = {limit}").limits_run
    assert limit == settings(file, "", {"RUNYARD_LIMITS_RUN": str(limit)}).limits_run


@pytest.mark.parametrize("name", ["keep_bytes_max", "result_bytes_max", "tombstone_s", "webhook_keep_max"])
def test_a_number_below_nothing_is_refused_by_name(file: Path, name: str) -> None:
    with pytest.raises(BadRequest, match=f"{name} must be 0 or more, not -1"):
        settings(file, f"{name} = -1")


def test_the_platforms_terms_of_jobs_are_settings(file: Path) -> None:
    text = "retention_s = 1\nretention_sync_s = 2\nttl_s = 30\nttl_scope = 'queue'\nkeep_s = 4\nattempts_max = 5"

    assert DEFAULT_TERMS == settings(file, "").job_terms
    assert (
        JobTerms(retention_s=1, retention_sync_s=2, ttl_s=30, ttl_scope=QUEUE, keep_s=4, attempts_max=5)
        == settings(file, text).job_terms
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("limits_run = 5", r"limits_run.*table"),
        ("limits_run = '5'", r"limits_run.*table"),
        ("limits_run = 'five'", r"limits_run cannot be 'five'"),
        ("limits_run = { rate = 5 }", r"limits_run.*no rate.*requests, window_s, in_flight, per_worker"),
        ("limits_run = { requests = -5 }", r"limits_run: requests must be"),
        ("limits = 'strict'", r"limits must be off or runpod, not 'strict'"),
        ("[limits]\nrun = 5", r"limits must be off or runpod"),
        ("store = 'postgresql://db/jobs'", r"store must be embedded or memory, not 'postgresql://db/jobs'"),
        ("durability = 'much'", r"durability must be power or process, not 'much'"),
        ("isolation = 'some'", r"isolation must be auto, require or off, not 'some'"),
        ("webhook_retries = 'often'", r"webhook_retries must be runpod or backoff, not 'often'"),
        ("webhook_targets = 'ours'", r"webhook_targets must be any or public-only, not 'ours'"),
        ("attempts_max = 0", r"attempts_max must be 1 to 20, not 0"),
        ("retention_s = 0.5", r"retention_s must be 1 to 604800, not 0.5"),
        ("retention_sync_s = 604801", r"retention_sync_s must be 1 to 604800, not 604801"),
        ("ttl_s = 9", r"ttl_s must be 10 to 604800, not 9"),
        ("ttl_scope = 'none'", r"ttl_scope must be all or queue, not 'none'"),
        ("keep_s = -1", r"keep_s must be 0 to 31536000, not -1"),
        ("payloads = 'file'", r"payloads must be folder, or s3://bucket/prefix, not 'file'"),
        ("payloads = 's3://'", r"payloads must be"),
        ("payloads = 's3://bucket/a b'", r"payloads must be"),
    ],
)
def test_what_a_setting_cannot_be_is_refused_by_name(file: Path, text: str, named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        settings(file, text)


@pytest.mark.parametrize(
    ("payloads", "bucket"),
    [
        ("folder", None),
        ("s3://results", ("results", "")),
        ("s3://results/", ("results", "")),
        ("s3://my.results/yards/one/", ("my.results", "yards/one")),
    ],
)
def test_payloads_are_in_the_folder_or_below_a_prefix(
    file: Path, payloads: str, bucket: tuple[str, str] | None
) -> None:
    assert bucket == settings(file, f"payloads = '{payloads}'").bucket


def test_build_arguments_are_a_table_of_texts(file: Path) -> None:
    asked = (("A", "1"), ("PIP_INDEX_URL", "https://pypi.example.com"))

    assert asked == settings(file, '[build_args]\nPIP_INDEX_URL = "https://pypi.example.com"\nA = "1"').build_args
    assert asked[:1] == settings(file, "", {"RUNYARD_BUILD_ARGS": '{ A = "1" }'}).build_args
    with pytest.raises(BadRequest, match="build_args: it is a table of texts, and 1 is none: put it in quotes"):
        settings(file, "build_args = { A = 1 }")
    with pytest.raises(BadRequest, match="setting build_args cannot be 'A=1'"):
        settings(file, "build_args = 'A=1'")
