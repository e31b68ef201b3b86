"""Settings: one frozen value from defaults, `runyard.toml`, `RUNYARD_*` variables and flags, in rising precedence."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, cast

from runyard.domain.attempt import ATTEMPTS_MAX_LIMIT, QUARANTINE_AFTER, AttemptLimits
from runyard.domain.errors import BadRequest
from runyard.domain.limits import Limit
from runyard.domain.terms import BOUNDS, DEFAULT_TERMS, RETENTION_WAIT_S_MAX, JobTerms, TtlScope
from runyard.domain.webhook import SCHEDULES

MIB = 1 << 20
_BUCKET = re.compile(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,62})(?:/+([A-Za-z0-9!_.*()-]+(?:/[A-Za-z0-9!_.*()-]+)*)?/*)?")
_OWN_TERMS = " An endpoint may have its own, in `runyard.jobs`."


def _setting(default: Any, help: str, *, of: tuple[str, ...] = ()) -> Any:
    """`of`: all that it can be."""
    return field(default=default, metadata={"help": help, "of": of})


def _term(name: str, help: str, *, of: tuple[str, ...] = ()) -> Any:
    """The platform's part of what holds for jobs."""
    default, bounds = getattr(DEFAULT_TERMS, name), BOUNDS.get(name)
    within = "" if bounds is None else f" From {bounds[0]:.0f} to {bounds[1]:.0f}."
    return _setting(str(default) if of else default, help + within + _OWN_TERMS, of=of)


def _limit(operations: str, more: str = "", **numbers: int) -> Any:
    return _setting(Limit(**numbers), f"Limit of {operations} while `limits` is not off.{more}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything an operator can set. In `runyard.toml` under the field's name, in the environment as RUNYARD_<NAME>."""

    host: str = _setting("127.0.0.1", "Address the user port listens on. Everything else stays on loopback.")
    port: int = _setting(8000, "User port: data plane, control plane, health and metrics. 0 takes a free one.")
    worker_port: int = _setting(0, "Worker-plane port, always on loopback. 0 takes a free one.")
    data_dir: Path = _setting(
        Path("~/.runyard"), "Where keys, endpoints, bundles and environments are kept, mode 0700."
    )
    domain: str = _setting("localhost", "Domain under which load-balancing endpoints get their host names.")
    store: str = _setting(
        "embedded",
        "Where jobs are kept: `embedded` (in the data directory: what was acknowledged survives restarts, crashes and power "
        "failures) or `memory` (they end with the server process).",
        of=("embedded", "memory"),
    )
    durability: str = _setting(
        "power",
        "What the embedded store's acknowledgements survive: `power` (a power failure; each commit waits for the disk) or "
        "`process` (the end of any process, `kill -9` included; a power failure or a crash of the operating system takes "
        "the last changes to jobs, and nothing else). Endpoints and keys always survive both.",
        of=("power", "process"),
    )
    disk_reserve_bytes: int = _setting(
        256 * MIB,
        "Bytes that are kept for what has been promised: while less than this can still be written to the data directory, "
        "new jobs, retries and bundles are answered 503, and results, cancels and reads go on. The embedded store asks for "
        "it, and bundles with any store. 0: never.",
    )
    store_bytes_max: int = _setting(
        2048 * MIB,
        "Payload bytes that are held in memory, which large inputs and results are not; submits over it are answered 503 "
        "until jobs expire.",
    )
    run_bytes_max: int = _setting(10 * MIB, "Largest `/run` body in bytes; larger ones get 413.")
    runsync_bytes_max: int = _setting(20 * MIB, "Largest `/runsync` body in bytes; larger ones get 413.")
    result_bytes_max: int = _setting(
        1024 * MIB,
        "Largest result a worker may send, in bytes of its body. One that is larger fails its job. What does not lie inline "
        "goes to disk as it comes, so this costs no memory.",
    )
    result_inline_bytes: int = _setting(
        MIB // 4,
        "Results whose body is larger than this many bytes lie in files of their own, where `payloads` says, and not in "
        "memory or among the jobs.",
    )
    input_inline_bytes: int = _setting(
        MIB // 4,
        "Inputs larger than this many bytes lie in files of their own, where `payloads` says, and not in memory or among "
        "the jobs. They are read before a worker takes their job.",
    )
    payloads: str = _setting(
        "folder",
        "Where results over `result_inline_bytes`, and inputs over `input_inline_bytes`, lie: `folder` (in the data "
        "directory) or `s3://bucket/prefix`, an object store that speaks S3, below a prefix that is this platform's alone: "
        "[how](../howto/results-in-s3.md).",
    )
    s3_endpoint: str = _setting(
        "",
        "Address of that object store, as in `https://minio.example.com:9000`. Empty: what `AWS_ENDPOINT_URL` or AWS's own "
        "settings say, else AWS.",
    )
    s3_region: str = _setting("", "Region of that bucket. Empty: what `AWS_DEFAULT_REGION` or AWS's own settings say.")
    webhook_output_bytes_max: int = _setting(
        10 * MIB,
        "Largest output in bytes that a webhook carries; in place of a larger one it has `outputPath`, where it can be "
        "read.",
    )
    limits: str = _setting(
        "off",
        "Limits of what one API key may ask of one endpoint: `runpod` has those of the hosted service, operation by "
        "operation, each of which can be changed below; `off` has none. Requests beyond them are answered 429.",
        of=("off", "runpod"),
    )
    limits_run: Limit = _limit(
        "`run`",
        " At most `requests` in any `window_s` seconds, or `per_worker` for each running worker if that is more, and "
        "`in_flight` open at once; 0 is no limit. What is not named keeps its default. In the environment it is written "
        "as in the file: `RUNYARD_LIMITS_RUN='{ requests = 50 }'`.",
        requests=1000,
        in_flight=200,
        per_worker=200,
    )
    limits_runsync: Limit = _limit("`runsync`", requests=2000, in_flight=400, per_worker=400)
    limits_status: Limit = _limit("`status` and `status-sync`", requests=2000, in_flight=400, per_worker=400)
    limits_stream: Limit = _limit("`stream`", requests=2000, in_flight=400, per_worker=400)
    limits_openai: Limit = _limit("`openai`", requests=2000, in_flight=400, per_worker=400)
    limits_cancel: Limit = _limit("`cancel`", requests=100, in_flight=20, per_worker=20)
    limits_purge_queue: Limit = _limit("`purge-queue`", requests=2)
    bundle_bytes_max: int = _setting(200 * MIB, "Largest source bundle in bytes.")
    stop_grace_s: float = _setting(10.0, "Seconds a worker gets between SIGTERM and SIGKILL.")
    job_stop_grace_s: float = _setting(
        5.0, "Seconds a worker gets to stop a cancelled or timed-out job before the worker is replaced."
    )
    retention_s: float = _term(
        "retention_s", "Seconds that a job which came by `run` is readable on the compatible routes after its end."
    )
    retention_sync_s: float = _term(
        "retention_sync_s",
        "The same for `runsync`, which also keeps a result for as long as the call may `wait`, up to "
        f"{RETENTION_WAIT_S_MAX:.0f} s.",
    )
    ttl_s: float = _term("ttl_s", "Seconds that a job may exist whose `policy.ttl` does not say otherwise.")
    ttl_scope: str = _term(
        "ttl_scope",
        "Where a job's time to live counts: `all`, as documented, deletes it in whatever state it is; `queue` deletes it "
        "only while it waits, so that one that runs may finish and its result has all of its retention. A job that loses "
        "its worker waits again.",
        of=tuple(TtlScope),
    )
    keep_s: float = _term(
        "keep_s",
        "Seconds that an ended job, with its payloads, stays readable at `/v2/{id}/requests/{job}` behind its retention.",
    )
    keep_bytes_max: int = _setting(
        10 * 1024 * MIB,
        "Bytes that the database, and the large inputs and results of jobs that have ended, may take together before jobs "
        "go that are kept behind their retention, the oldest first, and before `keep_s` is over. They go, too, when the "
        "disk is full. With jobs in memory it is an eighth of `store_bytes_max`, if that is less.",
    )
    tombstone_s: float = _setting(
        604_800.0,
        "Seconds that a job which is gone is still known by its id, and by its idempotency key; a week. It is less where "
        "`keep_bytes_max` is reached. A job that its client has named is known for a day in any case.",
    )
    log_keep_days: float = _setting(90.0, "Days that the log lines of workers are kept.")
    log_keep_bytes: int = _setting(
        1024 * MIB,
        "Bytes of log lines that are kept, roughly; where there are more, the oldest of the endpoint that has the most go. "
        "0: the last lines are kept in memory alone.",
    )
    attempts_max: int = _term(
        "attempts_max",
        "How many workers may lose a job, by dying or by sending no result, before it is FAILED. Workers that the platform "
        "stops, or that end together with it, do not count.",
    )
    quarantine_after: int = _setting(
        QUARANTINE_AFTER,
        "How many workers may die with a job in hand before it is FAILED and quarantined: then it runs again only where "
        f"somebody insists. 2 to {ATTEMPTS_MAX_LIMIT}, at most `attempts_max` counts. One death may be the machine's doing, "
        "and with 2 the second one ends a job that might have been done; set it where a worker is dear to start.",
    )
    poll_hold_s: float = _setting(
        22.0, "Seconds a worker's poll for a job is held open; 20 to 25 suits all SDK versions."
    )
    vigil_us: int = _setting(
        150,
        "Microseconds the gateway stays awake after a request to see whether more comes, where more has lately come that "
        "soon. It takes a quarter off the round trips of very quick handlers; idle platforms and slow handlers do without. "
        "0: never.",
    )
    ping_interval_ms: int = _setting(10_000, "How often workers report that they live, in milliseconds.")
    build_timeout_s: float = _setting(1800.0, "Seconds that building an environment or an image may take.")
    build_ca_bundle: Path | None = _setting(
        None,
        "File of certificates (PEM) that builds of images and the images themselves are to trust, all of them; for machines "
        "whose way out has a certificate of its own. Unset: what the base image trusts.",
    )
    build_args: tuple[tuple[str, str], ...] = _setting(
        (),
        'Build arguments that every Dockerfile gets, as a table: `{ PIP_INDEX_URL = "https://pypi.example.com/simple" }`. '
        "They need no ARG there, and an endpoint's own win. Whoever has the image can read them.",
    )
    build_memory_bytes: int = _setting(0, "Bytes of memory that one step of an image's build may use. 0: any.")
    build_cpus: float = _setting(0.0, "CPUs that one step of an image's build may use. 0: all.")
    image_bytes_max: int = _setting(
        100 * 1024 * MIB,
        "Bytes that images which were pulled or built for endpoints may take, layers that they share counted once, before "
        "those go that no release and no container uses, the longest unused first; they go, too, while the Engine's disk "
        "has less than `disk_reserve_bytes` free. Images that the machine's owner has "
        "brought are neither counted nor removed. 0: none goes.",
    )
    isolation: str = _setting(
        "auto",
        "Whether process workers are shut off from each other and from the platform: `auto` insists on it when the platform "
        "runs as root and does without otherwise, `require` insists on it, `off` does without.",
        of=("auto", "require", "off"),
    )
    volume_dir: Path | None = _setting(
        None,
        "Folder that workers see as /runpod-volume; unset: none. Containers always do, processes when the platform runs as "
        "root.",
    )
    docker_host: str = _setting(
        "",
        "Address of the Docker Engine that runs containers, as in `unix:///run/docker.sock` or `tcp://host:2376`. Empty: "
        "what `DOCKER_HOST` says, else the usual socket. Nobody is asked before there is a container to run.",
    )
    docker_self: str = _setting(
        "",
        "Name or id of the container that the platform itself runs in, for the Engine, where it cannot find out. One that "
        "shares the machine's network is none.",
    )
    docker_subnets: str = _setting(
        "10.213.0.0/16",
        "Addresses for the networks of containers: each endpoint has 64 of them. Those that the Engine has given to others "
        "are passed over.",
    )
    docker_cpus: float = _setting(0.0, "CPUs that a container may use whose endpoint does not say. 0: all.")
    docker_memory_bytes: int = _setting(
        0, "Memory in bytes, without swap, that a container may use whose endpoint does not say. 0: all."
    )
    docker_shm_bytes: int = _setting(
        0,
        "Shared memory in bytes of a container whose endpoint does not say. 0: the Engine's default, 64 MiB as a rule.",
    )
    docker_disk_bytes: int = _setting(
        0,
        "Bytes that a container may write outside of volumes whose endpoint does not say. 0: any number. Where the Engine "
        "cannot refuse them, a container that has written more is killed within 15 s.",
    )
    docker_pids_max: int = _setting(
        4096, "Processes and threads that a container may have whose endpoint does not say. At least 1."
    )
    docker_capabilities: str = _setting(
        "CHOWN,DAC_OVERRIDE,FOWNER,FSETID,KILL,NET_BIND_SERVICE,SETGID,SETPCAP,SETUID,SYS_CHROOT",
        "Linux capabilities that root has in a container, all others being dropped; separated by commas. Of Docker's own "
        "list it lacks `AUDIT_WRITE`, `MKNOD`, `NET_RAW` and `SETFCAP`. Empty: none.",
    )
    docker_new_privileges: bool = _setting(
        False, "Whether programs in containers may gain privileges when they are executed, as `sudo` and `su` do."
    )
    webhook_retries: str = _setting(
        "runpod",
        "When a webhook is tried again: `runpod`, three tries 10 s apart, where 200 alone is success; or `backoff`, eleven "
        "tries over a day, from 5 s apart to 6 hours, each 4 times as long as before and up to a fifth more or less, where "
        "every 2xx is success.",
        of=tuple(SCHEDULES),
    )
    webhook_targets: str = _setting(
        "any",
        "Which addresses webhooks may go to: `any`, which is all but link-local, metadata, unspecified and multicast ones "
        "and the platform's own ports; or `public-only`, which refuses private, loopback, carrier's and other addresses "
        "that are not public as well: for a platform whose users do not trust each other.",
        of=("any", "public-only"),
    )
    webhook_keep_s: float = _setting(
        604_800.0, "Seconds that a webhook delivery and the log of its tries are kept after it has finished; a week."
    )
    webhook_keep_max: int = _setting(
        10_000, "Finished webhook deliveries of one endpoint that are kept, the newest; what is more goes early."
    )
    webhook_waiting_max: int = _setting(
        100_000,
        "Webhook deliveries of one endpoint that may wait; where it is more, the oldest are lost, and logged so.",
    )
    webhook_keep_bytes: int = _setting(
        1024 * MIB,
        "Bytes of all webhook bodies that are kept; what is more goes early, the oldest first, and those that wait last.",
    )

    def __post_init__(self) -> None:
        for setting in fields(self):
            choices, choice = setting.metadata["of"], getattr(self, setting.name)
            if choices and choice not in choices:
                *others, last = choices
                raise BadRequest(f"{setting.name} must be {', '.join(others)} or {last}, not {choice!r}")
        _ = self.attempt_limits, self.bucket, self.job_terms, self.container_subnets
        for setting in fields(self):
            number = getattr(self, setting.name)
            if isinstance(number, int | float) and number < 0:
                raise BadRequest(f"{setting.name} must be 0 or more, not {number}")

    @property
    def rate_limits(self) -> Mapping[str, Limit]:
        """By operation; none when they are off."""
        if self.limits == "off":
            return {}
        return {
            "run": self.limits_run,
            "runsync": self.limits_runsync,
            "status": self.limits_status,
            "stream": self.limits_stream,
            "openai": self.limits_openai,
            "cancel": self.limits_cancel,
            "purge-queue": self.limits_purge_queue,
        }

    @property
    def bucket(self) -> tuple[str, str] | None:
        """Name and prefix, when payloads lie in one. Raises `BadRequest`."""
        if self.payloads == "folder":
            return None
        parts = _BUCKET.fullmatch(self.payloads)
        if parts is None:
            raise BadRequest(f"payloads must be folder, or s3://bucket/prefix, not {self.payloads!r}")
        return parts[1], parts[2] or ""

    @property
    def container_subnets(self) -> IPv4Network:
        """Raises `BadRequest`."""
        try:
            return IPv4Network(self.docker_subnets)
        except ValueError as error:
            raise BadRequest(f"docker_subnets must be a network like 10.213.0.0/16: {error}") from error

    @property
    def attempt_limits(self) -> AttemptLimits:
        """Raises `BadRequest` for numbers out of their bounds."""
        return AttemptLimits(attempts_max=self.attempts_max, quarantine_after=self.quarantine_after)

    @property
    def job_terms(self) -> JobTerms:
        """The platform's. Raises `BadRequest` for numbers out of their bounds."""
        return JobTerms(
            retention_s=self.retention_s,
            retention_sync_s=self.retention_sync_s,
            ttl_s=self.ttl_s,
            ttl_scope=TtlScope(self.ttl_scope),
            keep_s=self.keep_s,
            attempts_max=self.attempts_max,
        )

    @property
    def root(self) -> Path:
        """The data directory, resolved."""
        return self.data_dir.expanduser().absolute()

    def make_root(self) -> Path:
        """The data directory, made if need be, for its owner alone. Raises `BadRequest`."""
        root = self.root
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            root.chmod(0o700)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise BadRequest(f"cannot use {root} as data directory: {reason}") from error
        return root


def load(
    overrides: Mapping[str, Any], environ: Mapping[str, str] = os.environ, toml: Path = Path("runyard.toml")
) -> Settings:
    """Settings from all sources; `overrides` (flags that were given) win. Raises `BadRequest` naming what is wrong."""
    values: dict[str, Any] = {}
    if toml.is_file():
        try:
            values |= tomllib.loads(toml.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise BadRequest(f"{toml} is not valid TOML: {error}") from error
    known = {f.name: f for f in fields(Settings)}
    if unknown := values.keys() - known.keys():
        raise BadRequest(f"{toml} has unknown settings: {', '.join(sorted(unknown))}")
    for name in known:
        if (value := environ.get(f"RUNYARD_{name.upper()}")) is not None:
            values[name] = value
    values |= {name: value for name, value in overrides.items() if value is not None}
    return Settings(**{name: _coerce(name, value, known[name].default) for name, value in values.items()})


def _coerce(name: str, value: Any, default: Any) -> Any:
    try:
        match default:
            case bool():
                return value if isinstance(value, bool) else {"true": True, "false": False}[str(value).lower()]
            case int():
                return int(value)
            case float():
                return float(value)
            case Limit():
                return default.changed(_table(value))
            case tuple():
                return tuple(sorted((key, _text(of)) for key, of in _table(value).items()))
            case Path() | None:
                return Path(value)
            case _:
                return str(value)
    except BadRequest as error:
        raise BadRequest(f"setting {name}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequest(f"setting {name} cannot be {value!r}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"it is a table of texts, and {value!r} is none: put it in quotes")
    return value


def _table(value: Any) -> Mapping[str, object]:
    """A table of the file, or one of the environment, written as the file would have it in one line."""
    table = tomllib.loads(f"it = {value}")["it"] if isinstance(value, str) else value
    if not isinstance(table, Mapping):
        raise BadRequest(f"it is a table like {{ requests = 50 }}, not {value!r}")
    return cast("Mapping[str, object]", table)
