import os
import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import pytest

from runyard.adapters.pip_settings import UvSettings, for_uv, read


def test_later_sources_replace_earlier_ones_setting_by_setting(tmp_path: Path) -> None:
    machine, home, prefix, named = (tmp_path / name for name in ("machine", "home", "prefix", "named.conf"))
    for file, text in {
        machine / "pip/pip.conf": "[global]\nindex-url = https://machine\nfind-links = /machine\ntimeout = 1\n",
        home / ".pip/pip.conf": "[global]\nextra-index-url = https://old\n",
        home / ".config/pip/pip.conf": "[global]\nextra_index_url =\n  https://a\n  https://b\n",
        prefix / "pip.conf": "[install]\nindex-url = https://install\n[download]\npre = yes\n",
        named: "[global]\nindex-url = https://named\n--timeout = 2\n",
    }.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    environ = {"XDG_CONFIG_DIRS": str(machine), "PIP_CONFIG_FILE": str(named), "PIP_FIND_LINKS": "/environment"}

    assert read(environ, home, prefix, etc=tmp_path) == {
        "index-url": "https://install",  # For `pip install` its section stands over [global], whatever the file.
        "extra-index-url": "\nhttps://a\nhttps://b",
        "find-links": "/environment",
        "timeout": "2",
    }


def test_no_file_is_read_when_pip_reads_none(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://no\n")

    assert read({"PIP_CONFIG_FILE": os.devnull, "PIP_PRE": "1"}, tmp_path, tmp_path, etc=tmp_path) == {"pre": "1"}


@pytest.mark.parametrize("text", ["no section\n", "[global\n", "[global]\nindex-url\n", "[other]\n", "\xff"])
def test_a_broken_file_counts_as_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "pip.conf").write_bytes(text.encode("latin-1"))
    environ = {"XDG_CONFIG_DIRS": str(tmp_path), "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}

    assert "index-url" not in read(environ, tmp_path, tmp_path, etc=tmp_path)


def test_pip_itself_reads_the_same() -> None:
    pip = [sys._base_executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listed = subprocess.run(pip, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("there is no pip on this machine to compare with")
    pairs = [line.partition("=") for line in listed.stdout.splitlines()]
    merged = {
        key.removeprefix(f"{section}."): literal_eval(value)
        for section in ("global", "install", ":env:")
        for key, _, value in pairs
        if key.startswith(f"{section}.")
    }

    assert read(prefix=Path(sys.base_prefix)) == merged


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({}, ()),
        ({"index-url": "https://a/simple"}, ("--index-url", "https://a/simple")),
        (
            {"extra-index-url": "\nhttps://a\nhttps://b"},
            ("--extra-index-url", "https://a", "--extra-index-url", "https://b"),
        ),
        ({"find-links": "/a /b"}, ("--find-links", "/a", "--find-links", "/b")),
        ({"find-links": "~/wheels"}, ("--find-links", str(Path.home() / "wheels"))),
        ({"trusted-host": "a.example:8080"}, ("--allow-insecure-host", "a.example:8080")),
        ({"no-binary": "a,b"}, ("--no-binary", "a", "--no-binary", "b")),
        ({"only-binary": ":all:"}, ("--only-binary", ":all:")),
        ({"no-index": "true"}, ("--no-index",)),
        ({"no-index": "0"}, ()),
        ({"progress-bar": "off", "user": "yes"}, ()),
    ],
)
def test_settings_become_flags(settings: dict[str, str], flags: tuple[str, ...]) -> None:
    assert for_uv(settings).flags == (*flags, "--index-strategy=unsafe-best-match")


def test_the_rest_becomes_what_only_resolving_takes_and_variables(tmp_path: Path) -> None:
    assert for_uv(
        {
            "pre": "on",
            "constraint": "/etc/constraints.txt https://a/constraints.txt",
            "cert": "/etc/ca.pem",
            "client-cert": "/etc/me.pem",
            "proxy": "http://proxy:3128",
            "default-timeout": "180",
            "find-links": f"{tmp_path} https://a/wheels /does/not/exist",
        }
    ) == UvSettings(
        flags=(
            *("--find-links", str(tmp_path), "--find-links", "https://a/wheels", "--find-links", "/does/not/exist"),
            "--index-strategy=unsafe-best-match",
        ),
        resolve_flags=("--prerelease=allow",),
        constraints=("/etc/constraints.txt", "https://a/constraints.txt"),
        env={
            "SSL_CERT_FILE": "/etc/ca.pem",
            "SSL_CLIENT_CERT": "/etc/me.pem",
            "ALL_PROXY": "http://proxy:3128",
            "UV_HTTP_TIMEOUT": "180",
        },
        folders=(tmp_path,),
    )
