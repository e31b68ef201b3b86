"""Docs and code in step: links lead somewhere, generated pages are what the code says, what the code has is written down."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from starlette.routing import Route

from runyard.adapters import pip_settings
from runyard.api.app import build_app
from runyard.api.metrics import _Snapshot
from runyard.config import Settings
from runyard.domain.errors import BuildFailed, RunyardError, StartFailed
from runyard.domain.fleet import Failures
from runyard.edge.jobs import JobRoutes
from runyard.edge.paths import Paths
from runyard.edge.worker import WorkerRoutes

ROOT = Path(__file__).parent.parent
TOPS = ("changes", "docs", "examples")
PAGES = sorted([*ROOT.glob("*.md"), *(page for top in TOPS for page in (ROOT / top).rglob("*.md"))])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
REFERENCE = ROOT / "docs/reference"
SOURCES = ROOT / "src/runyard"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(CODE.sub("", page.read_text())) if "://" not in link]

    assert [] == [link for link in links if not leads_somewhere(page, link)]


def test_generated_pages_are_what_the_code_says() -> None:
    check = subprocess.run(
        [sys.executable, ROOT / "docs/generate.py", "--check"], capture_output=True, text=True, check=False
    )

    assert (0, "") == (check.returncode, check.stderr)


def test_every_feature_has_a_row_on_the_compatibility_page() -> None:
    features = tomllib.loads((ROOT / "docs/reference/features.toml").read_text())["features"]
    page = (ROOT / "docs/reference/compatibility.md").read_text()

    assert [f"F{number:03}" for number in range(1, 181)] == [feature["id"] for feature in features]
    assert [feature["id"] for feature in features] == re.findall(r"^\| (F\d{3}) \|", page, re.MULTILINE)


def test_every_page_can_be_reached_from_the_index() -> None:
    reached: set[Path] = set()
    ahead = [ROOT / "docs/README.md"]
    while ahead:
        page = ahead.pop()
        if page not in reached:
            reached.add(page)
            links = (link.partition("#")[0] for link in LINK.findall(CODE.sub("", page.read_text())))
            ahead += [(page.parent / link).resolve() for link in links if link.endswith(".md") and "://" not in link]

    assert set() == {*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")} - reached


def test_the_http_api_page_has_every_route_and_no_other() -> None:
    routes = JobRoutes(*[MagicMock()] * 4, limits=MagicMock(), run_bytes_max=1, runsync_bytes_max=1, spills=MagicMock())
    hot = hot_routes(routes.paths, "/v2/{id}", "/{job_id}")
    others = {
        (method, route.path)
        for route in build_app(MagicMock()).routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - ({"HEAD"} if "GET" in (route.methods or ()) else set())
    }

    assert hot | others == routes_on(REFERENCE / "http-api.md")


def test_the_http_api_page_has_the_limits_of_the_preset() -> None:
    section = (REFERENCE / "http-api.md").read_text().partition("### Rate limits")[2]
    rows = re.findall(r"^\| `([\w-]+)`[^|]*\| (\d+) \|(?: (\d+))? \|(?: (\d+))? \|$", section, re.MULTILINE)
    limits = Settings(limits="runpod").rate_limits

    assert {limit.window_s for limit in limits.values()} == {10}
    assert {name: (limit.requests, limit.per_worker, limit.in_flight) for name, limit in limits.items()} == {
        name: tuple(int(number or 0) for number in numbers) for name, *numbers in rows
    }


def test_the_worker_protocol_page_has_every_route_and_no_other() -> None:
    routes = WorkerRoutes(
        *[MagicMock()] * 3, poll_hold_s=1, result_bytes_max=1, result_inline_bytes=1, spills=MagicMock()
    )

    assert hot_routes(routes.paths, "/v2/{id}", "/{worker_id}", "/{job_id}") == routes_on(
        REFERENCE / "worker-protocol.md"
    )


def test_the_metrics_page_has_every_metric_and_no_other() -> None:
    families = list(_Snapshot({}, {}, {}, MagicMock(free_bytes=0, full=False)).collect())
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}

    assert names == set(re.findall(r"^\| `(runyard_\w+)` \|", (REFERENCE / "metrics.md").read_text(), re.MULTILINE))


def test_the_errors_page_has_every_code_and_no_other() -> None:
    answers, reasons, _ = (REFERENCE / "errors.md").read_text().split("\n## ", 3)[1:]
    errors = {(error.code, str(error.status)) for error in (RunyardError, *below(RunyardError))}
    planned = re.findall(r'QueueReason\(\s*"(\w+)"', (SOURCES / "domain/fleet.py").read_text())

    assert errors == set(re.findall(r"^\| `(\w+)` \| (\d+) \|", answers, re.MULTILINE))
    starts = (StartFailed, *below(StartFailed))
    assert {*planned, Failures().code, BuildFailed.code, *(error.code for error in starts)} == set(
        re.findall(r"^\| `(\w+)` \|", reasons, re.MULTILINE)
    )


def test_the_environments_page_has_every_pip_setting_that_counts() -> None:
    page = (ROOT / "docs/howto/requirements-and-environments.md").read_text()
    source = Path(pip_settings.__file__).read_text()
    read = re.findall(r"(?:settings\.get|_on|_values)\((?:settings, )?\"([\w-]+)\"", source)

    assert set() == {*pip_settings.LISTS, *read} - set(re.findall(r"`([\w-]+)`", page))


def test_every_name_on_the_architecture_page_exists() -> None:
    names = re.findall(r"`([\w/]+\.(?:py|sh))(?::([\w.]+))?`", (ROOT / "ARCHITECTURE.md").read_text())

    assert len(names) > 40
    assert [] == [f"{file}:{name}" for file, name in names if not is_defined(SOURCES / file, name)]


def test_every_promise_names_tests_that_exist() -> None:
    page = (ROOT / "docs/reference/promises.md").read_text()
    rows = page.partition("## What survives what")[0].split("| --- | --- |\n")[1].strip().splitlines()

    assert [] == [row for row in rows if not re.search(r"`tests/|`make crash`", row)]
    named = re.findall(r"`(tests/[\w/.]+?)(?::([\w.]+))?`", page)
    assert [] == [file for file, name in named if not ((ROOT / file).is_dir() or is_defined(ROOT / file, name))]


def test_the_tree_on_the_architecture_page_is_that_of_the_code() -> None:
    tree = (ROOT / "ARCHITECTURE.md").read_text().partition("## The tree")[2].split("```")[1]
    there = {path.name + "/" * path.is_dir() for path in SOURCES.iterdir() if not path.name.startswith("__pycache__")}

    assert there - {"__init__.py"} == set(re.findall(r"^  ([\w.]+/?) ", tree, re.MULTILINE))
    assert [] == [name for name in re.findall(r"^(\w+/) ", tree, re.MULTILINE) if not (ROOT / name).is_dir()]


def hot_routes(paths: Paths, base: str, *names: str) -> set[tuple[str, str]]:
    """The last of `names` is the job's; the ones before it are in every path."""
    *always, job = names
    tables = (
        (paths._plain, "".join(always)),
        (paths._with_job, "".join((*always, job))),
        (paths._with_path, "".join((*always, "/{path}"))),
    )
    return {
        (method.decode(), f"{base}/{word}{rest}")
        for table, rest in tables
        for word, route in table.items()
        for method in route.methods
    }


def routes_on(page: Path) -> set[tuple[str, str]]:
    """Rows that begin with "METHOD, METHOD /path"."""
    rows = re.findall(r"^\| `([A-Z, ]+) (/\S+)` \|", page.read_text(), re.MULTILINE)
    return {(method, path) for methods, path in rows for method in methods.split(", ")}


def below(error: type[RunyardError]) -> Iterable[type[RunyardError]]:
    for child in error.__subclasses__():
        yield child
        yield from below(child)


def is_defined(file: Path, name: str) -> bool:
    """Whether the file is there and has this function, class, constant, or one inside of another."""
    if not file.is_file():
        return False
    body = ast.parse(file.read_text()).body if name else []
    for part in name.split(".") if name else ():
        found = next((node for node in body if part in defined_by(node)), None)
        if found is None:
            return False
        body = getattr(found, "body", [])
    return True


def defined_by(node: ast.stmt) -> Iterable[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return (name,)
        case ast.AnnAssign(target=ast.Name(id=name)):
            return (name,)
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case _:
            return ()


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", CODE.sub(lambda code: code[0].strip("`"), page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
