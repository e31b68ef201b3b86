"""What `make demo` runs: a platform of its own, one handler deployed to it, one request from the official client.

Everything lives in a temporary folder and on a free port, so a platform that is already running is not touched.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
START_S_MAX = 60
STOP_S_MAX = 60


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="runyard-demo-") as data_dir, platform(Path(data_dir)) as url:
        say("runyard serve", f"a platform on {url}, with no workers")

        key = (Path(data_dir) / "admin.key").read_text().strip()
        runyard = {"RUNYARD_URL": url, "RUNYARD_API_KEY": key}
        deployed = output("runyard", "deploy", HERE / "handler.py", "--name", "hello", "--json", env=runyard)
        endpoint = json.loads(deployed)["id"]
        say("runyard deploy handler.py", f"endpoint {endpoint}")

        started = time.monotonic()
        runpod = {"RUNPOD_ENDPOINT_BASE_URL": f"{url}/v2", "RUNPOD_API_KEY": key}
        answer = output(sys.executable, HERE / "client.py", endpoint, env=runpod)
        say("python client.py", f"{answer}  ({time.monotonic() - started:.1f} s: environment, worker, job)")
    say("SIGTERM", "the platform has stopped its worker and itself")


@contextmanager
def platform(data_dir: Path) -> Iterator[str]:
    """A running `runyard serve` and its URL; stopped at the end. Its log is shown if anything goes wrong."""
    log = data_dir / "serve.log"
    command = ["runyard", "serve", "--port", "0", "--data-dir", data_dir]
    with log.open("w") as stderr, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as server:
        try:
            spoke, _, _ = select.select([server.stdout], [], [], START_S_MAX)
            ready = server.stdout.readline() if spoke else ""
            if not ready.startswith("runyard ready on "):
                sys.exit("runyard serve did not start")
            yield ready.split()[-1]
        except BaseException:
            sys.stderr.write(log.read_text())
            raise
        finally:
            server.terminate()
            try:
                server.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                server.kill()
                raise


def output(*command: object, env: dict[str, str]) -> str:
    done = subprocess.run(command, env=os.environ | env, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def say(command: str, result: str) -> None:
    print(f"{command:26}  {result}", flush=True)


if __name__ == "__main__":
    main()
