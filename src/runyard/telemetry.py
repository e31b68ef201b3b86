"""The platform's own log: one line per event on stderr, for people on a terminal, else as JSON."""

from __future__ import annotations

import logging
import sys

import structlog


def set_up_logging(level: str = "INFO") -> None:
    """Send every logger's records to stderr through one formatter. Values of secrets are never passed to a logger."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # uvicorn speaks about every connection it does not like; the edge answers those itself.
    logging.getLogger("uvicorn").setLevel("ERROR")
    for chatty in ("httpx2", "botocore"):
        logging.getLogger(chatty).setLevel("WARNING")
