"""`runyard deploy`: pack sources, bring them, and create or update the endpoint of that name."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import click

from runyard.cli.containers import container_body, container_options, pairs, refuse, take_container
from runyard.cli.following import follow_release
from runyard.cli.output import json_option, print_json
from runyard.cli.platform import control
from runyard.cli.targets import Build, Image, Sources, Target, target_of
from runyard.cli.terms import take_terms, term_options

if TYPE_CHECKING:
    from runyard.cli.bundle import Bundle, Progress
    from runyard.wire import control as wire

WORKERS_MIN_DEFAULT = 0
WORKERS_MAX_DEFAULT = 3
IDLE_TIMEOUT_DEFAULT_S = 5
SCALER_VALUE_DEFAULT = 4.0
UPLOAD_CHUNK_BYTES = 1 << 18
SCALERS = {"queue-delay": ("QUEUE_DELAY", "queueDelay"), "request-count": ("REQUEST_COUNT", "requestCount")}
GENERIC_STEMS = frozenset({"handler", "rp_handler", "main"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The flags that say how the endpoint runs; None where the flag was not given."""

    name: str
    workers_min: int | None
    workers_max: int | None
    idle_timeout: int | None
    scaler: str | None
    scaler_value: float | None
    env: dict[str, str] | None
    jobs: dict[str, Any]
    """What is to hold for its jobs, by the wire's names."""
    container: dict[str, Any]
    """Flags that only containers have, as far as they were given."""


@click.command()
@click.argument("target")
@click.option("--name", help="Name of the endpoint; an existing one gets a new release.  [default: the folder's]")
@click.option("--type", "kind", type=click.Choice(["queue", "load-balancer"]), default="queue", show_default=True)
@click.option(
    "--runtime", type=click.Choice(["process", "docker"]), help="How workers run.  [default: docker with a Dockerfile]"
)
@click.option(
    "--handler", metavar="FILE", help="The handler's file.  [default: handler.py, rp_handler.py, src/handler.py]"
)
@click.option("--workers-min", type=click.IntRange(0), help="Workers that are always on.  [default: 0]")
@click.option("--workers-max", type=click.IntRange(0), help="The most workers there may be.  [default: 3]")
@click.option("--idle-timeout", type=click.IntRange(1, 3600), help="Seconds an idle worker stays.  [default: 5]")
@click.option("--scaler", type=click.Choice(list(SCALERS)), help="What adds workers.  [default: queue-delay]")
@click.option("--scaler-value", type=float, help="Seconds a job may wait, or jobs per worker.  [default: 4]")
@click.option(
    "--env", "env", multiple=True, metavar="K=V", help="Variable of the workers; repeatable, replaces them all."
)
@container_options
@term_options
@click.option("--gpu", metavar="TYPE", help="Not yet.")
@click.option("--gpu-count", type=click.IntRange(0), help="Not yet.")
@click.option("--sdk", type=click.Choice(["native", "tuned", "pushed", "stock"]), help="Only stock for now.")
@click.option(
    "--wait/--no-wait", default=None, help="Wait until the image is there, or not.  [default: on a terminal, wait]"
)
@json_option
def deploy(
    target: str,
    name: str | None,
    kind: str,
    runtime: str | None,
    dockerfile: str | None,
    handler: str | None,
    env: tuple[str, ...],
    gpu: str | None,
    gpu_count: int | None,
    sdk: str | None,
    wait: bool | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Deploy TARGET and print the endpoint's id.

    TARGET is a handler's file, or a folder with one, to run as processes; a folder with a Dockerfile, to run as
    containers of the image that is built of it; or, where there is no such file or folder, an image.

    A folder is packed without what its .gitignore, .runpodignore and, to be built, .dockerignore leave out. Deploying again
    under the same name makes a new release; flags that are not given then leave the endpoint's settings as they are.
    """
    _refuse_what_comes_later(kind, gpu, gpu_count, sdk)
    found = target_of(target, runtime, dockerfile)
    container = take_container(flags)
    _refuse_what_does_not_fit(found, target, handler, container)
    named = {"name": name or _name_of(found), "env": pairs("--env", env) if env else None}
    options = Options(**named, jobs=take_terms(flags), container=container, **flags)
    _check_scaler(options)
    if not isinstance(found, Sources):
        _check_engine()
    deployed = _deploy(found, handler, options)
    if as_json:
        print_json({"id": deployed.id, "name": deployed.name, "version": deployed.runyard.version})
    else:
        click.echo(deployed.id)
    if wait or (wait is None and not isinstance(found, Sources) and sys.stderr.isatty()):
        follow_release(control(), deployed, time.sleep)


def _refuse_what_comes_later(kind: str, gpu: str | None, gpu_count: int | None, sdk: str | None) -> None:
    if kind != "queue":
        raise click.UsageError("--type load-balancer is not built yet: this release deploys queue endpoints")
    if gpu is not None or gpu_count:
        raise click.UsageError("--gpu is not built yet: workers see every GPU of the machine, so leave it out")
    if sdk not in (None, "stock"):
        raise click.UsageError(f"--sdk {sdk} is not built yet: handlers run with the official SDK (--sdk stock)")


def _refuse_what_does_not_fit(found: Target, target: str, handler: str | None, container: dict[str, Any]) -> None:
    if isinstance(found, Sources):
        refuse(container, f"only containers have this, and {target} runs as a process")
    elif handler is not None:
        raise click.UsageError(
            "--handler: an image knows what it runs, or --entrypoint and --args say it: leave it out"
        )
    if isinstance(found, Image):
        refuse(container, f"{target} is an image, and not built", building_only=True)


def _check_engine() -> None:
    """Containers that cannot run would only wait, so that is said before anything is sent."""
    lacking = next(
        (runtime.reason for runtime in control().runtimes() if runtime.id == "docker" and not runtime.ready), None
    )
    if lacking is not None:
        raise click.ClickException(
            f"the platform cannot run containers: {lacking}. Without an Engine it runs the handler of a folder: deploy that "
            "with --runtime process"
        )


def _name_of(found: Target) -> str:
    """The folder's name; a file's own, unless every handler is called so; the last word of an image's."""
    if isinstance(found, Image):
        from runyard.domain.container import check_image

        return check_image(found.reference).name.rpartition("/")[2]
    path = found.path
    if path.is_dir() or path.stem in GENERIC_STEMS:
        return (path if path.is_dir() else path.parent).name or "root"
    return path.stem


def _check_scaler(options: Options) -> None:
    value = options.scaler_value
    if value is not None and not math.isfinite(value):
        raise click.UsageError(f"--scaler-value {value}: give a number")
    if options.scaler == "request-count" and value is not None and not value.is_integer():
        raise click.UsageError(f"--scaler-value {value:g}: jobs per worker are a whole number")


def _deploy(found: Target, handler: str | None, options: Options) -> wire.Endpoint:
    run = container_body(options.container, control().registry_id)
    if isinstance(found, Image):
        run["image"] = found.reference
    else:
        with tempfile.TemporaryFile() as file:
            bundle, what = _pack(found, handler, file)
            _upload(bundle, file)
        run["runyard"] = {"bundle": bundle.digest, **what, **run.get("runyard", {})}
    known = next((endpoint for endpoint in control().endpoints() if endpoint.name == options.name), None)
    return _create(options, run) if known is None else _update(known, options, run)


def _pack(found: Sources | Build, handler: str | None, file: IO[bytes]) -> tuple[Bundle, dict[str, str]]:
    """The bundle, and what of it runs."""
    from runyard.cli.bundle import CannotPack, gather, gather_context, pack

    try:
        if isinstance(found, Build):
            files = gather_context(found.path, found.dockerfile)
            return pack(files, file, _progress("packing", "files")), {"dockerfile": found.dockerfile}
        sources = gather(found.path, handler)
        return pack(sources.files, file, _progress("packing", "files")), {"handler": sources.handler}
    except CannotPack as error:
        raise click.ClickException(str(error)) from error


def _upload(bundle: Bundle, file: IO[bytes]) -> None:
    if control().has_bundle(bundle.digest):
        return
    file.seek(0)
    control().upload(bundle.digest, _chunks(file, bundle.size), bundle.size)


def _chunks(file: IO[bytes], size: int) -> Iterator[bytes]:
    progress, done = _progress("uploading", "bytes"), 0
    while chunk := file.read(UPLOAD_CHUNK_BYTES):
        yield chunk
        done += len(chunk)
        progress(done, size)


def _create(options: Options, run: dict[str, Any]) -> wire.Endpoint:
    scaler = options.scaler or "queue-delay"
    workers = {"min": WORKERS_MIN_DEFAULT, "max": max(WORKERS_MAX_DEFAULT, options.workers_min or 0)}
    if scaler == "queue-delay":
        workers["idleTimeout"] = IDLE_TIMEOUT_DEFAULT_S
    body = {
        "name": options.name,
        "type": "QUEUE",
        "workers": workers | _workers(options),
        "scaling": _scaling(scaler, options.scaler_value),
        "env": options.env or {},
    }
    return control().create(body | _with_terms(run, options))


def _update(known: wire.Endpoint, options: Options, run: dict[str, Any]) -> wire.Endpoint:
    body = _with_terms(run, options)
    if workers := _workers(options):
        body["workers"] = workers
    if options.env is not None:
        body["env"] = options.env
    if options.scaler is not None or options.scaler_value is not None:
        body["scaling"] = _scaling_of(known, options)
    return control().update(known.id, body)


def _with_terms(run: dict[str, Any], options: Options) -> dict[str, Any]:
    return run | {"runyard": {**run.get("runyard", {}), "jobs": options.jobs}}


def _workers(options: Options) -> dict[str, int]:
    given = {"min": options.workers_min, "max": options.workers_max, "idleTimeout": options.idle_timeout}
    return {name: value for name, value in given.items() if value is not None}


def _scaling(scaler: str, value: float | None) -> dict[str, Any]:
    kind, field = SCALERS[scaler]
    number = SCALER_VALUE_DEFAULT if value is None else value
    return {"type": kind, field: int(number) if number.is_integer() else number}


def _scaling_of(known: wire.Endpoint, options: Options) -> dict[str, Any]:
    """As it is to be: with another scaler an old number would mean something else."""
    scaler, value = _scaler_of(known), options.scaler_value
    if value is None and options.scaler in (None, scaler):
        _, field = SCALERS[scaler]
        value = float(getattr(known.scaling, field))
    return _scaling(options.scaler or scaler, value)


def _scaler_of(endpoint: wire.Endpoint) -> str:
    from runyard.wire.control import QueueDelayScaling

    return "queue-delay" if isinstance(endpoint.scaling, QueueDelayScaling) else "request-count"


def _progress(doing: str, unit: str) -> Progress:
    """Says how far it is, on a terminal only and once a percent."""
    if not sys.stderr.isatty():
        return lambda done, total: None
    shown = -1

    def show(done: int, total: int) -> None:
        nonlocal shown
        percent = 100 if total == 0 else 100 * done // total
        if percent != shown:
            shown = percent
            end = "\n" if done == total else ""
            click.echo(f"\r{doing} {percent:3d}% of {total} {unit}{end}", err=True, nl=False)

    return show
