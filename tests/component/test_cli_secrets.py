"""`runyard secrets` and `runyard registries` against the real control plane in process."""

from pathlib import Path

import pytest

from tests.component.test_cli import Yard, yard

__all__ = ["yard"]  # A fixture.

VALUE = "hf_not-to-be-seen"


def value_of(yard: Yard, name: str) -> str:
    env = (("A", f"{{{{ RUNPOD_SECRET_{name} }}}}"),)
    return yard.bridge.loop.run_until_complete(yard.plane.secrets.values(env))[name]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (VALUE, VALUE),
        (f"{VALUE}\n", VALUE),
        (f"{VALUE}\r\n", VALUE),
        (f"{VALUE}\n\n", f"{VALUE}\n"),
        (" a\nb \n", " a\nb "),
        ("é", "é"),
    ],
    ids=ascii,
)
def test_a_value_comes_on_standard_input_or_from_a_file(yard: Yard, tmp_path: Path, given: str, kept: str) -> None:
    (tmp_path / "file").write_text(given, newline="")
    results = [
        yard.run("secrets", "set", "piped", input=given),
        yard.run("secrets", "set", "filed", "--from-file", str(tmp_path / "file")),
    ]

    assert [0, 0] == [result.exit_code for result in results]
    assert [kept, kept] == [value_of(yard, name) for name in ("piped", "filed")]
    assert "{{ RUNPOD_SECRET_piped }}" in results[0].stderr
    assert not [result for result in results if VALUE in result.output]


def test_no_value_is_an_argument(yard: Yard) -> None:
    for command in (("secrets", "set", "hf", VALUE), ("registries", "add", "hub", "--username", "me", VALUE)):
        assert 2 == yard.run(*command, input=VALUE).exit_code
    for command in (("secrets", "set", "hf", "--value", VALUE), ("registries", "add", "hub", "--password", VALUE)):
        assert 2 == yard.run(*command).exit_code


@pytest.mark.parametrize(
    ("given", "says"), [(b"", "is empty"), (b"\n", "is empty"), (b"\xff" + VALUE.encode(), "UTF-8")]
)
def test_what_is_no_value_is_refused(yard: Yard, tmp_path: Path, given: bytes, says: str) -> None:
    (tmp_path / "file").write_bytes(given)
    refused = yard.run("secrets", "set", "hf", "--from-file", str(tmp_path / "file"))

    assert (1, True) == (refused.exit_code, says in refused.stderr)
    assert VALUE not in refused.output
    assert {"secrets": []} == yard.json("secrets", "list")


def test_secrets_are_listed_deleted_and_put_under_a_new_key(yard: Yard) -> None:
    shown = yard.json("secrets", "set", "hf", input=VALUE)
    yard.ok("secrets", "set", "pw", input=VALUE)
    header, *rows = yard.ok("secrets", "list").splitlines()

    assert (["NAME", "CREATED", "SET"], ["hf", "pw"]) == (header.split(), [row.split()[0] for row in rows])
    assert shown == yard.json("secrets", "list")["secrets"][0]
    assert {"name": "pw"} == yard.json("secrets", "delete", "pw")
    assert {"secrets": 1, "registries": 0} == yard.json("secrets", "rotate-key")
    assert "1 secrets and 0 registry credentials" in yard.run("secrets", "rotate-key").stderr
    assert "deleted hf" in yard.run("secrets", "delete", "hf").stderr
    gone = yard.run("secrets", "delete", "hf")
    assert (1, True) == (gone.exit_code, "there is no secret 'hf'" in gone.stderr)


def test_a_name_that_no_url_holds_is_refused_and_not_mistaken(yard: Yard) -> None:
    refused = yard.run("secrets", "set", "../keys/hf", input=VALUE)

    assert 1 == refused.exit_code
    assert VALUE not in refused.output


def test_registries_are_added_listed_and_deleted(yard: Yard) -> None:
    id = yard.ok("registries", "add", "hub", "--username", "me", "--server", "ghcr.io", input=f"{VALUE}\n").strip()
    other = yard.json("registries", "add", "other", "--username", "me", input=VALUE)
    header, *rows = yard.ok("registries", "list").splitlines()

    assert ["ID", "NAME", "SERVER", "CREATED"] == header.split()
    assert [[id, "hub", "ghcr.io"], [other["id"], "other", "any"]] == [row.split()[:3] for row in rows]
    credential = yard.bridge.loop.run_until_complete(yard.plane.registries.credential(id))
    assert ("me", VALUE, "ghcr.io") == (credential.username, credential.password, credential.server)
    assert other == yard.json("registries", "list")["registries"][1]
    assert {"id": other["id"]} == yard.json("registries", "delete", other["id"])
    assert f"deleted {id}" in yard.run("registries", "delete", id).stderr
    yard.plane.registry_users.append("hello")
    id = yard.ok("registries", "add", "hub", "--username", "me", input=VALUE).strip()
    assert (1, True) == ((used := yard.run("registries", "delete", id)).exit_code, "hello" in used.stderr)
