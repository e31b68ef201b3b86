"""Bodies of REST v2 for serverless endpoints (contract G.2), of keys and bundles, and of errors.

Names are exactly the wire's. What a caller sends is closed: unknown fields are refused. What the platform answers is open,
and its additions sit in one `runyard` object (decision 9). A field that is `UNSET` is left out.

Bounds the contract leaves open are set here: whole numbers are those that every JSON reader holds exactly, and a queue
delay is at most the week that a job may live.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from runyard.wire.containers import Limits, LimitsRequest, Preparation, ReleaseRunyard, Runtime
from runyard.wire.jobs import AttemptBody
from runyard.wire.numbers import GB_MAX, Count, CountFromOne, Integer, Number

Text = Annotated[str, Meta(min_length=1)]

EndpointType = Literal["QUEUE", "LOAD_BALANCER"]
TtlScope = Literal["all", "queue"]
FlashBoot = Literal["OFF", "FLASHBOOT", "PRIORITY_FLASHBOOT"]
WorkerStatus = Literal["RUNNING", "IDLE", "INITIALIZING", "THROTTLED", "UNHEALTHY"]


# --- Both ways -------------------------------------------------------------------------------------------------------


class QueueDelayScaling(msgspec.Struct, tag_field="type", tag="QUEUE_DELAY", forbid_unknown_fields=True):
    """Seconds a request may wait before another worker is added."""

    queueDelay: Annotated[float, Meta(ge=0.5, le=604_800)]


class RequestCountScaling(msgspec.Struct, tag_field="type", tag="REQUEST_COUNT", forbid_unknown_fields=True):
    """Requests, waiting or running, per worker."""

    requestCount: CountFromOne


Scaling = QueueDelayScaling | RequestCountScaling


# --- What callers send -----------------------------------------------------------------------------------------------


class WorkersRequest(msgspec.Struct, forbid_unknown_fields=True):
    """`idleTimeout` is seconds."""

    min: Count | UnsetType = UNSET
    max: Count | UnsetType = UNSET
    idleTimeout: Annotated[int, Meta(ge=1, le=3600)] | UnsetType = UNSET


class JobsRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What is to hold for the endpoint's jobs; null: what the platform's settings say."""

    retentionSeconds: Number | UnsetType | None = UNSET
    retentionSyncSeconds: Number | UnsetType | None = UNSET
    ttlSeconds: Number | UnsetType | None = UNSET
    ttlScope: TtlScope | UnsetType | None = UNSET
    keepSeconds: Number | UnsetType | None = UNSET
    attemptsMax: Integer | UnsetType | None = UNSET


class RunyardRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Our additions: run a source bundle, already uploaded, instead of an image, where `handler` is the file in it to run,
    or `dockerfile` the one by which an image is built of it; more of how a container runs; and terms of the endpoint's own
    for its jobs.
    """

    bundle: Text | UnsetType = UNSET
    handler: Text | UnsetType = UNSET
    dockerfile: Text | UnsetType = UNSET
    buildArgs: dict[str, str] | UnsetType = UNSET
    entrypoint: list[str] | UnsetType = UNSET
    limits: LimitsRequest | UnsetType = UNSET
    jobs: JobsRequest | UnsetType = UNSET


class EndpointRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What create and update share. `timeout` is milliseconds, `disk` gigabytes."""

    image: str | UnsetType = UNSET
    args: str | UnsetType = UNSET
    disk: Annotated[int, Meta(ge=1, le=GB_MAX)] | UnsetType = UNSET
    ports: list[str] | UnsetType = UNSET
    env: dict[str, str] | UnsetType = UNSET
    registry: str | UnsetType | None = UNSET
    gpu: dict[str, Any] | UnsetType = UNSET
    cpu: Annotated[list[dict[str, Any]], Meta(min_length=1)] | UnsetType = UNSET
    workers: WorkersRequest | UnsetType = UNSET
    dataCenterIds: list[str] | UnsetType = UNSET
    networkVolumes: list[str] | UnsetType = UNSET
    timeout: Integer | UnsetType = UNSET
    flashboot: FlashBoot | UnsetType = UNSET
    runyard: RunyardRequest | UnsetType = UNSET


class CreateEndpointRequest(EndpointRequest, forbid_unknown_fields=True, kw_only=True):
    name: Text
    type: EndpointType
    scaling: Scaling
    templateId: Text | UnsetType = UNSET


class UpdateEndpointRequest(EndpointRequest, forbid_unknown_fields=True, kw_only=True):
    name: Text | UnsetType = UNSET
    scaling: Scaling | UnsetType = UNSET
    templateId: str | UnsetType = UNSET


class RedriveRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Jobs by their ids, or all of them; `force` takes quarantined ones along that are named."""

    ids: Annotated[list[Text], Meta(min_length=1, max_length=1000)] | UnsetType = UNSET
    all: bool = False
    force: bool = False


class CreateKeyRequest(msgspec.Struct, forbid_unknown_fields=True):
    name: Text


# --- What the platform answers ---------------------------------------------------------------------------------------


class RequestUrls(msgspec.Struct):
    """Where jobs are sent; `{job_id}` stands in those about one job."""

    run: str
    runSync: str
    status: str
    stream: str
    cancel: str
    retry: str
    purgeQueue: str
    health: str


class EndpointWorkers(msgspec.Struct):
    """Bounds of the fleet; no `idleTimeout` when scaling on requests."""

    min: int
    max: int
    idleTimeout: int | UnsetType = UNSET


class QueueReason(msgspec.Struct):
    """Why a job of the endpoint that waits now waits."""

    code: str
    message: str


class EndpointJobs(msgspec.Struct, kw_only=True):
    """What holds for the endpoint's jobs. `own` names what is set for it; the rest is the platform's."""

    retentionSeconds: float
    retentionSyncSeconds: float
    ttlSeconds: float
    ttlScope: TtlScope
    keepSeconds: float
    attemptsMax: int
    own: list[str]


class EndpointRunyard(msgspec.Struct, kw_only=True):
    """Our additions to an endpoint: what runs now, what holds for its jobs, and what they wait for.

    A process has `handler`; a container `entrypoint` and `limits`; one whose image is built from the bundle also
    `dockerfile` and `buildArgs`. `imageDigest` is the exact image, once it is known.
    """

    version: int
    generation: int
    runtime: Runtime
    bundle: str | UnsetType = UNSET
    handler: str | UnsetType = UNSET
    dockerfile: str | UnsetType = UNSET
    buildArgs: dict[str, str] | UnsetType = UNSET
    entrypoint: list[str] | UnsetType = UNSET
    limits: Limits | UnsetType = UNSET
    imageDigest: str | UnsetType = UNSET
    jobs: EndpointJobs
    preparation: Preparation | UnsetType = UNSET
    queueReason: QueueReason | UnsetType = UNSET


class Endpoint(msgspec.Struct, kw_only=True):
    """A serverless endpoint. One that runs a source bundle has no `image`, and one without a limit of its own no `disk`."""

    id: str
    name: str
    type: EndpointType
    requestUrls: RequestUrls
    image: str | UnsetType = UNSET
    disk: int | UnsetType = UNSET
    args: str = ""
    ports: list[str] = []
    env: dict[str, str]
    registry: str | None = None
    gpu: dict[str, Any] | None = None
    workers: EndpointWorkers
    scaling: Scaling
    dataCenterIds: list[str] = []
    networkVolumes: list[str] = []
    timeout: int
    flashboot: FlashBoot = "OFF"
    createdAt: str
    runyard: EndpointRunyard


class EndpointList(msgspec.Struct):
    endpoints: list[Endpoint]


class WorkerRunyard(msgspec.Struct, omit_defaults=True):
    """Our additions to a worker: jobs in hand and, of one that leaves or has left, why and how."""

    jobs: int
    phase: str
    sdkVersion: str | None = None
    reason: str | None = None
    exit: str | None = None
    stoppedAt: str | None = None


class Worker(msgspec.Struct, kw_only=True):
    id: str
    status: WorkerStatus
    isStale: bool
    version: int
    gpuCount: int = 0
    image: str | None = None
    uptimeSeconds: int | None
    gpuTypeId: str | None = None
    dataCenterId: str | None = None
    startedAt: str | None
    runyard: WorkerRunyard


class WorkerSummary(msgspec.Struct, kw_only=True):
    """The listed workers by status."""

    running: int = 0
    idle: int = 0
    initializing: int = 0
    throttled: int = 0
    unhealthy: int = 0
    total: int


class WorkersRunyard(msgspec.Struct):
    """Our addition: the last workers that ended, newest first. The list beside it has live ones only."""

    stopped: list[Worker]


class WorkerList(msgspec.Struct):
    workers: list[Worker]
    summary: WorkerSummary
    endpointVersion: int
    runyard: WorkersRunyard


class Rollout(msgspec.Struct):
    """How far the live workers are on the current version."""

    inProgress: bool
    workersOnLatest: int
    workersTotal: int
    percentOnLatest: int


class ReleaseDiff(msgspec.Struct):
    """One changed field, as in `env` or `runyard.bundle`."""

    field: str
    old: Any
    new: Any


class Release(msgspec.Struct, kw_only=True):
    id: str
    version: int
    source: Literal["GIT_BUILD", "MANUAL"] = "MANUAL"
    buildId: str | None = None
    createdByUserId: str | None = None
    workerCount: int
    createdAt: str
    diff: list[ReleaseDiff]
    runyard: ReleaseRunyard | UnsetType = UNSET


class ReleaseList(msgspec.Struct):
    endpointVersion: int
    rollout: Rollout
    releases: list[Release]


class DeadLetter(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A job that ended without a result, and how each of its attempts did. Times waited and worked are milliseconds."""

    id: str
    status: Literal["FAILED", "TIMED_OUT"]
    createdAt: str
    finishedAt: str
    expiresAt: str
    """When the job is deleted with all about it."""
    run: int
    attemptsLost: int
    quarantined: bool = False
    error: str | None = None
    workerId: str | None = None
    delayTime: int | None = None
    executionTime: int | None = None
    attempts: list[AttemptBody] = []


class DeadLetterList(msgspec.Struct):
    deadLetters: list[DeadLetter]
    next: str | None


class Refusal(msgspec.Struct):
    """A named job that was not redriven."""

    id: str
    code: str
    detail: str


class Redriven(msgspec.Struct):
    """How many jobs wait again, how many stay because they are quarantined, and what was asked for in vain."""

    redriven: int
    quarantined: int
    refused: list[Refusal]


class Key(msgspec.Struct, kw_only=True):
    id: str
    name: str
    createdAt: str


class CreatedKey(Key, kw_only=True):
    """`key` is the secret; it is shown this once."""

    key: str


class KeyList(msgspec.Struct):
    keys: list[Key]


class Bundle(msgspec.Struct):
    sha256: str


class LogEvent(msgspec.Struct):
    """Data of one log event (contract E.4); worker and job are our additions."""

    ts: str
    source: Literal["container", "system"]
    line: str
    workerId: str
    jobId: str | UnsetType = UNSET


class Problem(msgspec.Struct):
    """An error of the control plane, `application/problem+json` (RFC 9457)."""

    title: str
    status: int
    detail: str
    errors: list[str] | UnsetType = UNSET


class Error(msgspec.Struct):
    """An error of every other route."""

    error: str


class Health(msgspec.Struct):
    status: Literal["ok"] = "ok"
