"""A small root file system around this machine's own Python, for images where none can be pulled.

In it are the interpreter and its standard library under /usr/local, the shared libraries they need and all of libc6's (name
services are opened by name, which no linker sees), the certificates that this machine trusts, busybox, and the few files
under /etc that programs expect. Bytecode is compiled without the sources' times in it, so that the same machine makes
the same bytes.
"""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable
from pathlib import Path

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
SITE_PACKAGES = Path("usr/local/lib") / VERSION / "site-packages"
UNUSED = ("__pycache__", "config-*", "ensurepip", "idlelib", "lib2to3", "*-packages", "test", "tkinter", "turtledemo")
ALSO_NEEDED = ("libgcc_s.so.1", "libstdc++.so.6")
"""No need of Python's, but of compiled packages."""

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "os-release": 'ID=runyard-test\nPRETTY_NAME="A root file system made by hand"\n',
}
ENVIRONMENT = ("PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG=C.UTF-8")


def fill(root: Path) -> None:
    """Make the tree in this empty folder."""
    for name in ("usr/bin", "usr/lib", "usr/lib64", "usr/sbin", "usr/local/bin", "usr/local/lib", "etc/ssl/certs"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    for name in ("dev", "proc", "root", "run", "sys", "tmp", "var/tmp"):
        (root / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    for name, content in ETC.items():
        (root / "etc" / name).write_text(content)
    _add_certificates(root)
    _add_busybox(root)
    _add_python(root)


def interpreter() -> Path:
    """The one below the virtual environment."""
    return Path(sys._base_executable).resolve()  # type: ignore[attr-defined]


def libc() -> Path:
    return next(path for path in _libraries_of_libc() if path.name == "libc.so.6")


def layer(tree: Path, place: Path, target: Path) -> None:
    """This tree as a layer in which it lies at `place`: always root's, in one order, of one time."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(tree.iterdir()):
            tar.add(path, str(place / path.name), filter=plain)


def _add_certificates(root: Path) -> None:
    """Where Debian has them, and where this machine's OpenSSL looks, which is what the copied one will do."""
    place, looked_at = root / CERTIFICATES.relative_to("/"), ssl.get_default_verify_paths().openssl_cafile
    shutil.copy(CERTIFICATES, place)
    _add_link(root, root / looked_at.lstrip("/"), place)


def _add_busybox(root: Path) -> None:
    busybox = shutil.which("busybox")
    assert busybox, "busybox is not installed"
    shutil.copy(busybox, root / "usr/bin/busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if not (root / "usr/bin" / applet).exists():
            (root / "usr/bin" / applet).symlink_to("busybox")


def _add_python(root: Path) -> None:
    """Python finds its library from where it lies, so it may lie elsewhere than here."""
    binary = interpreter()
    library = root / "usr/local/lib" / VERSION
    shutil.copytree(sysconfig.get_path("stdlib"), library, symlinks=False, ignore=shutil.ignore_patterns(*UNUSED))
    for package in ("_tkinter", "nis"):
        for extension in (library / "lib-dynload").glob(f"{package}.*"):
            extension.unlink()
    (root / SITE_PACKAGES).mkdir()
    shutil.copy(binary, root / "usr/local/bin" / VERSION)
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to(VERSION)
    _add_libraries(root, [binary, *(library / "lib-dynload").glob("*.so")])
    # Debian's Python looks for packages under other names.
    _add_link(root, root / "usr/local/lib/python3/dist-packages", root / SITE_PACKAGES)
    compileall = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    subprocess.run([*compileall, "-s", str(root), "-p", "/", str(library)], check=True)


def _add_link(root: Path, link: Path, target: Path) -> None:
    if link == target:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("/" + str(target.relative_to(root)))


def _add_libraries(root: Path, binaries: Iterable[Path]) -> None:
    """What these binaries load, and all of libc6, where the loader of this machine looks first."""
    found = set(_libraries_of(binaries)) | set(_libraries_of_libc()) | set(_cached_libraries(ALSO_NEEDED))
    folder = root / "usr" / libc().parent.relative_to(_top(libc()))
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(found):
        if path.name.startswith("ld-linux"):
            place = root / "usr" / path.parent.relative_to(_top(path))
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place / path.name)
        else:
            shutil.copy(path, folder / path.name)


def _top(path: Path) -> Path:
    """/usr or /: a library below /lib lies below /usr/lib in the image, whichever this machine says."""
    return Path("/usr") if path.is_relative_to("/usr") else Path("/")


def _libraries_of(binaries: Iterable[Path]) -> list[Path]:
    listed = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    return [Path(path) for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listed, re.MULTILINE)]


def _libraries_of_libc() -> list[Path]:
    listed = subprocess.run(["dpkg", "-L", "libc6"], capture_output=True, text=True, check=True).stdout
    return [
        Path(line)
        for line in listed.splitlines()
        if re.fullmatch(r"(/usr)?/lib(/[^/]+-[^/]+)?/lib[^/]+\.so[.\d]*", line)
    ]


def _cached_libraries(names: Iterable[str]) -> list[Path]:
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    paths = dict(re.findall(r"^\s+(\S+) \(libc6,.*-64.*\) => (\S+)$", listed, re.MULTILINE))
    return [Path(paths[name]) for name in names if name in paths]
