"""`runyard backup` and `runyard restore` on real folders, without a platform that runs."""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from runyard.adapters import backups, payloads
from runyard.adapters.backups import check_whole
from runyard.adapters.payload_owner import owner_in
from runyard.adapters.payloads import FolderPayloads
from runyard.adapters.stores.control import SqliteControl
from runyard.cli.main import main
from runyard.domain.account import digest_of
from runyard.domain.errors import BadRequest, TooBusy
from tests.contract import samples
from tests.contract.test_upgrades import tables
from tests.payload_kit import keep

BUNDLE = b"a bundle" * 1000
DIGEST = hashlib.sha256(BUNDLE).hexdigest()
RESULT = b"a large result" * 1000
PAYLOAD = "endpoint-1,job-1,0123456789abcdef"
RESTORED = [
    "admin.key",
    "blobs",
    f"blobs/{DIGEST}",
    "control.db",
    "keeper.lock",
    "payloads",
    f"payloads/{PAYLOAD}",
]
SECRET = "rpa_the-admin-key-of-the-source"


@pytest.fixture(autouse=True)
def its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the payload that is kept."""
    monkeypatch.setattr(payloads, "name_for", lambda endpoint_id, job_id: PAYLOAD)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory as a platform leaves it."""
    data = tmp_path / "data"
    (data / "blobs").mkdir(parents=True)
    (data / "blobs" / DIGEST).write_bytes(BUNDLE)
    (data / "blobs" / "tmp1234.part").write_bytes(b"half")
    asyncio.run(keep(FolderPayloads(data / "payloads"), RESULT))
    (data / "payloads" / f"{PAYLOAD}.part").write_bytes(b"half")
    (data / "environments").mkdir()
    (data / "admin.key").write_text(SECRET)
    asyncio.run(samples.fill(data / "control.db"))
    return data


@pytest.fixture
def backup(tmp_path: Path, data: Path) -> Path:
    assert 0 == run("backup", tmp_path / "backup", "--data-dir", data).exit_code
    return tmp_path / "backup"


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def restored(backup: Path, into: Path, *, code: int = 0) -> Result:
    result = run("restore", backup, "--data-dir", into)
    assert code == result.exit_code, result.output
    return result


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def edit(backup: Path, **changes: Any) -> None:
    file = backup / "backup.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rows(path: Path) -> list[str]:
    """All but what restoring adds."""
    return [line for line in samples.dump(path).splitlines() if "'admin'" not in line or "key-1" in line]


def test_all_that_matters_comes_back(data: Path, backup: Path, tmp_path: Path) -> None:
    restored(backup, tmp_path / "again")

    assert rows(data / "control.db") == rows(tmp_path / "again/control.db")
    assert BUNDLE == (tmp_path / "again/blobs" / DIGEST).read_bytes()
    assert RESULT == (tmp_path / "again/payloads" / PAYLOAD).read_bytes()
    assert RESTORED == files(tmp_path / "again")


def test_a_backup_is_for_its_owner_and_opens_nothing(backup: Path) -> None:
    everything = b"".join(path.read_bytes() for path in backup.rglob("*") if path.is_file())

    assert ["backup.json", *(name for name in RESTORED[1:] if name != "keeper.lock")] == files(backup)
    assert SECRET.encode() not in everything
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (backup, *backup.rglob("*")) if path.is_dir()}
    assert {0o700} == modes
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in backup.rglob("*") if path.is_file()}


def test_whoever_restores_gets_a_new_key_and_old_ones_go_on(backup: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    restored(backup, again)
    secret = (again / "admin.key").read_text().strip()
    store = SqliteControl(again / "control.db")
    keys = asyncio.run(_keys_of(store))

    assert SECRET != secret
    assert digest_of(secret) in {key.digest for key in keys if key.revoked_at is None}
    assert samples.KEYS == [key for key in keys if key.id.startswith("key-")]
    assert 0o600 == stat.S_IMODE((again / "admin.key").stat().st_mode)


async def _keys_of(store: SqliteControl) -> list[Any]:
    try:
        return await store.keys()
    finally:
        await store.close()


def test_both_commands_say_what_they_did(data: Path, tmp_path: Path) -> None:
    backup, again = tmp_path / "some/where/backup", tmp_path / "again"
    made = json.loads(run("backup", backup, "--data-dir", data, "--json").stdout)
    back = json.loads(run("restore", backup, "--data-dir", again, "--json").stdout)

    assert str(backup) == made.pop("backup")
    assert str(again) == back.pop("data_dir")
    assert made == back
    assert (1, 1, None, samples.NEWEST) == (made["blobs"], made["payloads"], made["bucket"], made["schema"])
    assert made["bytes"] == made["database_bytes"] + len(BUNDLE) + len(RESULT)
    line = run("backup", tmp_path / "other", "--data-dir", data).stdout
    assert line.startswith(f"{tmp_path / 'other'}: data of 20")
    assert 1 == line.count("\n")


def test_what_was_deleted_is_not_in_a_backup(data: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(data / "control.db")) as database:
        database.execute("insert into journal (format, records) values (1, ?)", (b"forgotten secret " * 9999,))
        database.commit()
        database.execute("delete from journal where number = (select max(number) from journal)")
        database.commit()
    assert 0 == run("backup", tmp_path / "backup", "--data-dir", data).exit_code

    assert b"forgotten secret" not in (tmp_path / "backup/control.db").read_bytes()


def test_a_backup_replaces_nothing_and_is_not_in_what_it_copies(data: Path, backup: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in backup.rglob("*") if path.is_file()}
    again = run("backup", backup, "--data-dir", data)
    assert (1, True) == (again.exit_code, "exists" in again.output)
    assert before == {path: path.read_bytes() for path in backup.rglob("*") if path.is_file()}
    inside = run("backup", data / "backup", "--data-dir", data)
    assert (1, True) == (inside.exit_code, "inside the data directory" in inside.output)
    nothing = run("backup", tmp_path / "new", "--data-dir", tmp_path / "nowhere")
    assert (1, True) == (nothing.exit_code, "name it with --data-dir" in nothing.output)


@pytest.mark.parametrize("what", ["database", "bundle"])
def test_damaged_data_makes_no_backup(data: Path, tmp_path: Path, what: str) -> None:
    damage(data / "control.db" if what == "database" else data / "blobs" / DIGEST)
    result = run("backup", tmp_path / "backup", "--data-dir", data)

    assert 1 == result.exit_code
    assert "Error: " in result.output
    assert ["data"] == [path.name for path in tmp_path.iterdir()], "not even half a backup is left"


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:12288] = os.urandom(len(content[4096:12288]))
    path.write_bytes(content)


@pytest.mark.parametrize("part", ["control.db", f"blobs/{DIGEST}", f"payloads/{PAYLOAD}"])
@pytest.mark.parametrize("missing", [False, True])
def test_a_damaged_backup_restores_nothing(backup: Path, tmp_path: Path, part: str, missing: bool) -> None:
    (backup / part).unlink() if missing else damage(backup / part)
    result = restored(backup, tmp_path / "again", code=1)

    assert part in result.output
    assert not (tmp_path / "again/control.db").exists()
    with pytest.raises(BadRequest, match="restore"):
        check_whole(tmp_path / "again")


def test_a_backup_that_is_newer_or_is_none_is_refused(backup: Path, data: Path, tmp_path: Path) -> None:
    assert "is no backup" in restored(data, tmp_path / "again", code=1).output
    assert "is no backup" in restored(tmp_path / "nowhere", tmp_path / "again", code=1).output
    edit(backup, schema=99, version="9.9")
    assert "made by a newer Runyard (9.9, schema 99" in restored(backup, tmp_path / "again", code=1).output
    edit(backup, schema=1, blobs={"../../etc/passwd": 1})
    assert "names files that are none" in restored(backup, tmp_path / "again", code=1).output
    edit(backup, blobs={}, payloads={"../a,b,0123456789abcdef": {"bytes": 1, "sha256": ""}})
    assert "names files that are none" in restored(backup, tmp_path / "again", code=1).output
    (backup / "backup.json").write_text("{")
    assert "cannot be read" in restored(backup, tmp_path / "again", code=1).output
    assert ["keeper.lock"] == files(tmp_path / "again")


def test_a_folder_with_anything_in_it_is_not_restored_into(backup: Path, data: Path) -> None:
    before = files(data)
    assert "is not empty (it has admin.key" in restored(backup, data, code=1).output
    assert sorted([*before, "keeper.lock"]) == files(data)


def test_a_folder_that_a_platform_serves_from_is_not_restored_into(backup: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    with (again / "keeper.lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert 1 == run("restore", backup, "--data-dir", again).exit_code
    assert ["keeper.lock"] == files(again)


def test_a_restore_that_was_interrupted_is_done_again_and_not_served_before(backup: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    for name in ("blobs", "payloads"):
        shutil.copytree(backup / name, again / name)
    (again / "admin.key").write_text("half")
    (again / "restoring").mkdir()
    shutil.copy(backup / "control.db", again / "restoring/control.db")
    refused = run("serve", "--data-dir", again)
    assert (2, True) == (refused.exit_code, "run `runyard restore` again" in refused.output)
    restored(backup, again)

    check_whole(again)
    assert RESTORED == files(again)


def test_a_backup_of_an_older_schema_is_brought_up_to_date(data: Path, tmp_path: Path) -> None:
    (data / "control.db").unlink()
    samples.opened_as(1, data / "control.db")
    backup, again = tmp_path / "backup", tmp_path / "again"
    assert 1 == json.loads(run("backup", backup, "--data-dir", data, "--json").stdout)["schema"]
    assert "journal" not in {name for name, _ in raw_tables(data / "control.db")}, "what is copied stays as it is"
    restored(backup, again)

    assert tables(tmp_path / "new.db") == tables(again / "control.db")


def test_a_backup_of_before_there_were_payloads_in_it_is_restored(backup: Path, tmp_path: Path) -> None:
    file = backup / "backup.json"
    old = json.loads(file.read_text()) | {"format": 1}
    del old["payloads"], old["bucket"]
    file.write_text(json.dumps(old))
    restored(backup, tmp_path / "again")

    assert [] == list((tmp_path / "again/payloads").iterdir())


def test_a_platform_that_never_had_large_results_is_backed_up(data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / "payloads")

    assert 0 == run("backup", tmp_path / "backup", "--data-dir", data).exit_code
    restored(tmp_path / "backup", tmp_path / "again")


def test_no_result_goes_between_the_copy_of_the_database_and_its_own(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, folder, refused = backups._snapshot, FolderPayloads(data / "payloads"), list[TooBusy]()

    def snapshot_then_forget(source: Path, copy: Path) -> None:
        snapshot(source, copy)
        with pytest.raises(TooBusy, match="a backup is being made") as caught:
            asyncio.run(folder.forget([PAYLOAD]))
        refused.append(caught.value)

    monkeypatch.setattr(backups, "_snapshot", snapshot_then_forget)
    backups.back_up(data, tmp_path / "backup", now=0, version="1")
    asyncio.run(folder.forget([PAYLOAD]))

    assert refused
    assert RESULT == (tmp_path / "backup/payloads" / PAYLOAD).read_bytes()
    assert not (data / "payloads" / PAYLOAD).exists(), "after it, it goes"


def test_a_backup_names_the_bucket_that_it_does_not_hold(data: Path, tmp_path: Path) -> None:
    owner_in(data, "s3://results/yard/")
    made = run("backup", tmp_path / "backup", "--data-dir", data)
    back = run("restore", tmp_path / "backup", "--data-dir", tmp_path / "again", "--json")

    assert "what lies in s3://results/yard/ is not in the backup" in made.stderr
    assert "s3://results/yard/" == json.loads(back.stdout)["bucket"]
    assert "not in the backup" in back.stderr
    assert "payloads.owner" not in files(tmp_path / "again"), "what is restored is another platform"


def raw_tables(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("select name, sql from sqlite_master where sql is not null").fetchall()


def test_the_key_of_secrets_is_in_no_backup_and_is_asked_for(data: Path, tmp_path: Path) -> None:
    (data / "secrets.key").write_text("a key\n")
    assert 0 == run("backup", tmp_path / "backup", "--data-dir", data).exit_code
    assert "secrets.key" not in files(tmp_path / "backup")
    told = restored(tmp_path / "backup", tmp_path / "without").stderr

    assert "1 secrets and 1 registry credentials cannot be read without the key file" in told
    assert f"copy it to {tmp_path / 'without' / 'secrets.key'}" in told


def test_the_key_of_secrets_may_be_there_before_the_restore(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "with").mkdir()
    (tmp_path / "with/secrets.key").write_text("a key\n")
    told = restored(backup, tmp_path / "with").stderr

    assert "cannot be read" not in told
    assert "a key\n" == (tmp_path / "with/secrets.key").read_text()
    assert sorted([*RESTORED, "secrets.key"]) == files(tmp_path / "with")
