"""`runyard`: the command line, a client of REST v2 but for what works on a data directory: `serve`, `restart`,
`backup` and `restore`.

Start-up is a feature: what a command needs beyond click is imported when it runs. Exit codes: 0 it worked; 1 it did not,
or the job it ran has failed; 2 the command line is wrong.
"""

from __future__ import annotations

from typing import Any

import click

from runyard import __version__
from runyard.cli import (
    backup,
    dead_letters,
    deploy,
    endpoints,
    jobs,
    keys,
    logs,
    registries,
    restart,
    secrets,
    serve,
    top,
    webhooks,
)


class Commands(click.Group):
    """Says what went wrong in one line where it is known; anything else is a defect and shows its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            message = _known(error)
            if message is None:
                raise
            raise click.ClickException(message) from error


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "RUNYARD_URL says where the platform is (default http://127.0.0.1:8000), RUNYARD_API_KEY which key opens it "
        "(default: the admin key that `runyard serve` wrote on this machine)."
    ),
)
@click.version_option(__version__, prog_name="runyard")
def main() -> None:
    """Serverless for AI workloads on your own machines, compatible with Runpod."""


for command in (
    serve.serve,
    restart.restart,
    backup.backup,
    backup.restore,
    deploy.deploy,
    jobs.run,
    jobs.status,
    jobs.cancel,
    dead_letters.retry,
    jobs.purge,
    jobs.list_jobs,
    endpoints.endpoints,
    endpoints.workers,
    endpoints.delete,
    logs.logs,
    top.top,
    webhooks.webhooks,
    secrets.secrets,
    registries.registries,
    keys.keys,
):
    main.add_command(command)


def _known(error: Exception) -> str | None:
    from runyard.client.errors import ApiError, ClientError

    if isinstance(error, ApiError) and error.status == ApiError.UNAUTHORIZED:
        from runyard.cli.platform import key_source

        return f"{error} (the key came from {key_source()})"
    return str(error) if isinstance(error, ClientError) else None
