"""Docs and code in step: links lead somewhere, generated pages are what the code says, every row is accounted for."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOPS = ("changes", "docs", "examples")
PAGES = sorted([*ROOT.glob("*.md"), *(page for top in TOPS for page in (ROOT / top).rglob("*.md"))])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)


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


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", CODE.sub(lambda code: code[0].strip("`"), page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
