"""The environment a worker is born into (protocol A.1, rows F113, F119-F124)."""

from __future__ import annotations

from collections.abc import Mapping

from runyard.domain.job import EndpointId, WorkerId


def worker_env(
    *,
    base_url: str,
    endpoint_id: EndpointId,
    worker_id: WorkerId,
    secret: str,
    ping_interval_ms: int,
    user_env: Mapping[str, str],
) -> dict[str, str]:
    """All variables of the worker contract, the user's beside them; the contract's own win.

    The URLs need a `?`, since the SDK appends `&...` to them, and `$ID` means the worker in one and the job in two others.
    Log level and private downloads are defaults that the user may override: the SDK's own defaults log several lines a
    second, and refuse object stores on a private network.
    """
    plane = f"{base_url}/v2/{endpoint_id}"
    return {
        "RUNPOD_LOG_LEVEL": "INFO",
        "RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS": "1",
        **user_env,
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_ENDPOINT_ID": endpoint_id,
        "RUNPOD_POD_ID": worker_id,
        "RUNPOD_POD_HOSTNAME": worker_id,
        "RUNPOD_AI_API_KEY": secret,
        "RUNPOD_PING_INTERVAL": str(ping_interval_ms),
        "RUNPOD_WEBHOOK_GET_JOB": f"{plane}/job-take/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{plane}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{plane}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
        "RUNPOD_WEBHOOK_PING": f"{plane}/ping/$RUNPOD_POD_ID?gpu=none",
    }
