"""A runtime whose workers do as stock ones do: start up, ask for a job where their environment says, work, report."""

import asyncio
import json
from typing import Any

from runyard.adapters.runtimes.fake import FakeRuntime
from runyard.domain.job import WorkerId
from runyard.domain.worker import Exit
from runyard.ports.runtime import Launch, RuntimeObserver
from tests.component.wire import Ports, Reply


class Crew(FakeRuntime):
    """Each worker needs `boot_s` to come up; a job's input says how long it takes: `{"s": 3}`, and with `"dies": 9` by which
    signal the worker is killed instead of reporting.
    """

    def __init__(self, observer: RuntimeObserver, *, boot_s: float = 1.0) -> None:
        super().__init__(observer)
        self.boot_s = boot_s
        self.ports: Ports | None = None
        self.started: list[float] = []
        """When workers were started, on the loop's clock."""
        self.ended: list[float] = []
        self.most = 0
        """The most that ran at once."""
        self._lives: dict[WorkerId, asyncio.Task[None]] = {}

    @property
    def loop_time(self) -> float:
        return asyncio.get_running_loop().time()

    async def start(self, launch: Launch) -> None:
        await super().start(launch)
        self.started.append(self.loop_time)
        self.most = max(self.most, len(self.running))
        self._lives[launch.worker_id] = asyncio.create_task(self._live(launch))

    def exit(self, worker_id: WorkerId, exit: Exit) -> None:
        if worker_id in self.running:
            self.ended.append(self.loop_time)
            self._lives.pop(worker_id).cancel()
        super().exit(worker_id, exit)

    async def _live(self, launch: Launch) -> None:
        await asyncio.sleep(self.boot_s)
        while True:
            reply = await self._ask(launch, "GET", "RUNPOD_WEBHOOK_GET_JOB", more="&job_in_progress=0")
            if reply.status == 200:
                job = reply.json()
                self.say(launch.worker_id, f"working on {job['id']}")
                await asyncio.sleep(job["input"]["s"])
                if "dies" in job["input"]:
                    self.exit(launch.worker_id, Exit(None, job["input"]["dies"]))
                    return
                await self._ask(launch, "POST", "RUNPOD_WEBHOOK_POST_OUTPUT", job["id"], {"output": launch.worker_id})

    async def _ask(
        self, launch: Launch, method: str, name: str, job_id: str = "", body: Any = None, *, more: str = ""
    ) -> Reply:
        """As the official SDK fills in the address that it is given: `$ID` is the worker in one and the job in others."""
        assert self.ports is not None
        pod_id = launch.env["RUNPOD_POD_ID"]
        url = launch.env[name].replace("$RUNPOD_POD_ID", pod_id).replace("$ID", job_id or pod_id) + more
        target = "/" + url.partition("://")[2].partition("/")[2]
        data = b"" if body is None else json.dumps(body).encode()
        wire = await self.ports.connect_worker()
        try:
            return await wire.ask(
                f"{method} {target} HTTP/1.1\r\nHost: yard\r\nAuthorization: {launch.env['RUNPOD_AI_API_KEY']}\r\n"
                f"Content-Length: {len(data)}\r\n\r\n".encode()
                + data
            )
        finally:
            wire.leave()
