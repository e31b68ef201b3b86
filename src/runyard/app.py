"""The composition root: the only place that knows which adapter is real. Serves until the keeper wants something else."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runyard.adapters.blobs import FolderBlobs
from runyard.adapters.disk import DataDisk, lacks
from runyard.adapters.docker.builds import BuildOptions
from runyard.adapters.docker.engine import Engine
from runyard.adapters.docker.images import Images
from runyard.adapters.docker.presence import lacking_engine
from runyard.adapters.docker.spec import Policy
from runyard.adapters.files import write_secret
from runyard.adapters.handed_logs import pack_logs, unpack_logs
from runyard.adapters.keeper import Corridor, KeeperLine, Seat, speak_for_yourself
from runyard.adapters.payloads_moved import payloads_of
from runyard.adapters.runtimes.by_kind import Containers, NoContainers, RuntimeByKind
from runyard.adapters.runtimes.docker import DockerRuntime
from runyard.adapters.runtimes.process import ProcessRuntime
from runyard.adapters.s3 import Bucket
from runyard.adapters.signals import LocalSignals
from runyard.adapters.stores.control import SqliteControl
from runyard.adapters.stores.embedded import EmbeddedJobs
from runyard.adapters.stores.fleet import SqliteFleet
from runyard.adapters.stores.logs import SqliteLogs
from runyard.adapters.stores.memory import MemoryJobs
from runyard.adapters.stores.outbox import MemoryOutbox
from runyard.adapters.stores.secrets import SqliteSecrets
from runyard.adapters.system import RandomIds, SystemClock, within_hard_limit
from runyard.adapters.vault import KEY_FILE, FileVault
from runyard.adapters.webhooks import HttpxWebhooks
from runyard.adapters.worker_ports import HeldWorkerPorts
from runyard.config import Settings
from runyard.domain.errors import RunyardError, StartFailed
from runyard.domain.job import EndpointId
from runyard.edge.bodies import webhook_body
from runyard.edge.crowd import Crowd
from runyard.edge.listener import listening
from runyard.edge.vigil import Vigil
from runyard.platform import Adapters, Platform
from runyard.ports.payloads import Payloads
from runyard.ports.runtime import RuntimeObserver, WorkerRuntime
from runyard.ports.secrets import Credentials
from runyard.ports.stores import JobStore
from runyard.ports.webhooks import Outbox
from runyard.services.spill import Carried

log = logging.getLogger("runyard")

DESCRIPTORS_MAX = 1 << 20


async def serve(settings: Settings, seat: Seat) -> None:
    """Be the server of a keeper: stand by, open when it says so, and run until it wants this server to stop or to hand
    over, or is gone itself.
    """
    line = await KeeperLine.on(seat.line, seat.hatch)
    for number in (signal.SIGTERM, signal.SIGINT):
        # The keeper stops the platform; a signal to this process alone means the same.
        asyncio.get_running_loop().add_signal_handler(number, line.say, "stop")
    line.say("standing-by")
    speak_for_yourself(seat)
    await _first(line.opening, line.stopping, line.lost)
    if line.opening.is_set():
        try:
            await _run(settings, seat, line)
        except RunyardError as error:
            line.say("failed", error=error.message)
            raise


async def _run(settings: Settings, seat: Seat, line: KeeperLine) -> None:
    root = settings.make_root()
    ports = user_port, worker_port = socket.socket(fileno=seat.user_port), socket.socket(fileno=seat.worker_port)
    own_ports = [port.getsockname()[1] for port in ports]
    corridor = Corridor(seat.corridor_in, seat.corridor_out)
    vigil = Vigil(settings.vigil_us / 1e6, asyncio.get_running_loop())
    worker_ports = HeldWorkerPorts(line, own_ports)
    adapters = _adapters(settings, root, worker_ports, line, vigil)
    platform = Platform(adapters, settings, f"http://127.0.0.1:{own_ports[1]}")
    unpack_logs(platform.logs, root)
    crowd = Crowd.within(_all_descriptors())
    async with (
        platform.running(),  # Workers that are not known yet would be turned away, so the worker port opens after it.
        listening(worker_port, platform.worker_routes.paths, _nothing_here, vigil, crowd=crowd) as for_workers,
        listening(user_port, platform.job_routes.paths, platform.app, vigil, shut_at=worker_ports.hosts) as for_users,
    ):
        await worker_ports.serve_with(for_workers.add)
        listeners = (for_users, for_workers)
        for number, sock in corridor.arrivals():
            await listeners[number].adopt(sock)
        await platform.access.ensure_admin_key(partial(write_secret, root / "admin.key"))
        _calm_the_collector()
        host, port = user_port.getsockname()[:2]
        line.say("ready", url=f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        await _first(line.stopping, line.handing_over, line.lost, platform.broken)
        if line.stopping.is_set():
            await platform.drain()
        elif line.handing_over.is_set() or platform.broken.is_set():
            platform.hand_over()
            passing = (listener.hand_over(partial(corridor.leave, n)) for n, listener in enumerate(listeners))
            await asyncio.gather(*passing, platform.webhooks.settle())
        else:
            platform.hand_over()  # To the server of the next keeper: containers have outlived this one.
    if platform.handing_over:
        pack_logs(platform.logs, root)
    if platform.broken.is_set():
        raise RunyardError("the platform stopped because of a defect; its log has the details")
    if line.lost.is_set():
        raise RunyardError("the keeper is gone, and with it all workers that are processes; serve again")


async def _first(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _all_descriptors() -> int:
    """Take as many as this process may have, and has use for; returns how many. Workers have limits of their own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, within_hard_limit(resource.RLIMIT_NOFILE, DESCRIPTORS_MAX))
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def _calm_the_collector() -> None:
    """Jobs make no reference cycles, and walking over hundreds of thousands of them stops the world for 100 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _adapters(
    settings: Settings, root: Path, worker_ports: HeldWorkerPorts, line: KeeperLine, vigil: Vigil
) -> Adapters:
    control = SqliteControl(root / "control.db")
    blobs = FolderBlobs(root / "blobs")

    def runtime(observer: RuntimeObserver, credentials: Credentials) -> WorkerRuntime:
        processes = ProcessRuntime(
            root,
            blobs,
            observer,
            number_of=control.endpoint_number,
            volume_dir=settings.volume_dir,
            isolated=_isolated(settings.isolation),
            build_timeout_s=settings.build_timeout_s,
            line=line,
        )
        house = House(root, control, blobs, worker_ports)
        return RuntimeByKind(processes, _containers(settings, house, observer, credentials))

    carried = Carried(settings.webhook_output_bytes_max)
    store, outbox = _job_store(settings, root, vigil, carried)
    return Adapters(
        store=store,
        outbox=outbox,
        control=control,
        fleet=SqliteFleet(root / "control.db"),
        secrets=SqliteSecrets(root / "control.db"),
        vault=FileVault(root / KEY_FILE),
        blobs=blobs,
        payloads=_payloads(settings, root),
        carried=carried,
        signals=LocalSignals(),
        clock=SystemClock(),
        ids=RandomIds(),
        runtime=runtime,
        webhooks=HttpxWebhooks(
            own_ports=worker_ports,
            public_only=settings.webhook_targets == "public-only",
        ),
        disk=DataDisk(root, root / "control.db"),
        logs=SqliteLogs(root / "logs.db") if settings.log_keep_bytes else None,
        lacking_engine=partial(lacking_engine, settings.docker_host or None),
    )


@dataclass(frozen=True, slots=True)
class House:
    """What containers share with the rest of the platform."""

    root: Path
    control: SqliteControl
    blobs: FolderBlobs
    worker_ports: HeldWorkerPorts


def _containers(settings: Settings, house: House, observer: RuntimeObserver, credentials: Credentials) -> Containers:
    try:
        engine = Engine(settings.docker_host or None)
    except StartFailed as error:
        return NoContainers(error)

    async def endpoints() -> Collection[EndpointId]:
        return [endpoint.id for endpoint in await house.control.endpoints()]

    images = Images(
        engine,
        house.blobs,
        house.root / "images",
        credentials,
        builds=_build_options(settings),
        bytes_max=settings.image_bytes_max,
        lacking=partial(lacks, reserve_bytes=settings.disk_reserve_bytes),
    )
    return DockerRuntime(
        house.root / "docker",
        engine,
        images,
        house.worker_ports,
        observer,
        endpoints=endpoints,
        policy=_policy(settings),
        subnets=settings.container_subnets,
        named=settings.docker_self,
    )


def _build_options(settings: Settings) -> BuildOptions:
    return BuildOptions(
        timeout_s=settings.build_timeout_s,
        ca_bundle=settings.build_ca_bundle,
        args=dict(settings.build_args),
        memory_bytes=settings.build_memory_bytes,
        cpus=settings.build_cpus,
    )


def _policy(settings: Settings) -> Policy:
    return Policy(
        cpus=settings.docker_cpus or None,
        memory_bytes=settings.docker_memory_bytes or None,
        shm_bytes=settings.docker_shm_bytes or None,
        pids=max(1, settings.docker_pids_max),
        disk_bytes=settings.docker_disk_bytes or None,
        capabilities=tuple(settings.docker_capabilities.replace(",", " ").split()),
        new_privileges=settings.docker_new_privileges,
        volume_dir=settings.volume_dir.resolve() if settings.volume_dir else None,
    )


def _payloads(settings: Settings, root: Path) -> Payloads:
    lasting = settings.store != "memory"
    bucket = settings.bucket and Bucket(*settings.bucket, endpoint=settings.s3_endpoint, region=settings.s3_region)
    return payloads_of(root, bucket, synced=lasting and settings.durability == "power", emptied=not lasting)


def _job_store(settings: Settings, root: Path, vigil: Vigil, carried: Carried) -> tuple[JobStore, Outbox]:
    render = partial(webhook_body, carried=carried.get)
    if settings.store == "memory":
        outbox = MemoryOutbox(render, bytes_max=settings.webhook_keep_bytes)
        return MemoryJobs(bytes_max=settings.store_bytes_max, outbox=outbox), outbox
    store = EmbeddedJobs(
        root / "control.db",
        bytes_max=settings.store_bytes_max,
        synced=settings.durability == "power",
        disk_works=vigil.disk_works,
        render=render,
    )
    assert store.outbox is not None
    return store, store.outbox


def _isolated(choice: str) -> bool:
    """Root must not run other people's code as root unless it is told to."""
    return choice == "require" or (choice == "auto" and os.geteuid() == 0)


async def _nothing_here(scope: object, receive: object, send: Callable[[dict[str, object]], object]) -> None:
    """The worker port serves the worker contract and nothing else."""
    from starlette.responses import JSONResponse

    response = JSONResponse({"error": "this port serves workers only"}, status_code=404)
    await response(scope, receive, send)  # type: ignore[arg-type]
