"""Runyard from Python: endpoints and jobs, each with a sync and an async face.

    from runyard.client import Endpoint

    job = Endpoint("abc123").run({"prompt": "hello"})
    print(job.wait().output)

Where the platform is and which key opens it comes from the arguments, else from RUNYARD_URL and RUNYARD_API_KEY.
"""

from runyard.client.aio import AsyncEndpoint, AsyncJob
from runyard.client.errors import ApiError, ClientError, ConnectionLost, Unreachable
from runyard.client.shapes import JobStatus
from runyard.client.sync import Endpoint, Job

__all__ = [
    "ApiError",
    "AsyncEndpoint",
    "AsyncJob",
    "ClientError",
    "ConnectionLost",
    "Endpoint",
    "Job",
    "JobStatus",
    "Unreachable",
]
