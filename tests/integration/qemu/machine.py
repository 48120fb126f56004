"""A Debian with a kernel that has SocketCAN, in qemu, for the parts of a test that the host's kernel cannot run.

    machine = Machine(cache_directory())
    output = machine.run({"init": script, "opt/program.py": source})   # seconds to boot, then what the serial line said

The kernel is the host suite's ``linux-image-amd64``, unpacked, not installed. The root file system is trixie's, as on
a Pi, all in memory: both are made once and kept in the cache. The CPU is emulated (DESIGN.md, Testing ground: a
/dev/kvm may be there without a CPU that can).
"""

from __future__ import annotations

import collections.abc
import fcntl
import io
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import typing as t

SUITE: t.Final = "trixie"
PACKAGES: t.Final = (
    "python3",
    "python3-can",
    "python3-paho-mqtt",
    "can-utils",
    "iproute2",
    "kmod",
    "mosquitto",
    "mosquitto-clients",
)
MODULES: t.Final = (
    "can.ko",
    "can-raw.ko",
    "can-dev.ko",
    "vcan.ko",
    "slcan.ko",
    "sch_tbf.ko",
)  # in the order to insert them
LEFT_OUT: t.Final = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/", "var/cache/", "var/lib/apt/", "dev/")
FORMAT: t.Final = "3"  # raise it when what is cached changes
RUN_TIMEOUT: t.Final = 240.0  # seconds for boot and test on a busy machine; 30 are usual
MEMORY: t.Final = "2G"
READ_EXECUTE: t.Final = 0o755


def mirror() -> str:
    """The mirror that apt uses here for Debian itself; apt knows labels only after an update."""
    command = ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = [line.split()[1] for line in listing.splitlines() if line.startswith("Debian http")]
    assert found, "apt knows no mirror of Debian on this machine; run apt-get update, then this again"
    return found[0]


class MissingToolError(Exception):
    """What must be installed on the host."""


def cache_directory() -> pathlib.Path:
    """Where kernels and root file systems are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "trailcurrent-fleet" / "qemu"


class Machine:
    """Kernel and root file system, made where the cache has none."""

    def __init__(self, cache: pathlib.Path) -> None:
        for tool in ("qemu-system-x86_64", "mmdebstrap", "apt-get", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise MissingToolError(f"{tool} is not installed; apt-get install qemu-system-x86 mmdebstrap")
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._kernel, self._base = _kernel(cache), _root(cache)

    def run(self, files: dict[str, bytes]) -> str:
        """Boot with ``files`` laid over the root file system (``init`` is run first); what the serial line said.

        :raises subprocess.TimeoutExpired: when the machine does not switch itself off in time
        """
        overlay = self._kernel.with_name(f"overlay-{os.getpid()}.cpio")
        initrd = overlay.with_suffix(".initrd")
        try:
            with initrd.open("wb") as whole:
                for part in (self._base, self._kernel.with_suffix(".modules")):
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, whole)
                whole.write(archive(_overlay(files)))
            return _boot(self._kernel, initrd)
        finally:
            initrd.unlink(missing_ok=True)


def _boot(kernel: pathlib.Path, initrd: pathlib.Path) -> str:
    command = [
        "qemu-system-x86_64",
        *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY),
        *("-nographic", "-no-reboot", "-nic", "none", "-monitor", "none"),
        *("-kernel", str(kernel), "-initrd", str(initrd)),
        *("-append", "console=ttyS0 rdinit=/init panic=-1 mitigations=off quiet"),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN_TIMEOUT, check=False)
    return done.stdout.decode(errors="replace").replace("\r\n", "\n") + done.stderr.decode(errors="replace")


def _kernel(cache: pathlib.Path) -> pathlib.Path:
    depends = subprocess.run(
        ["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if found is None:
        raise MissingToolError("apt knows no linux-image-amd64; run apt-get update")
    kernel = cache / f"{found[1]}-{FORMAT}.vmlinuz"
    if not kernel.exists():
        work = cache / "download"
        work.mkdir(exist_ok=True)
        subprocess.run(["apt-get", "-q", "download", found[1]], cwd=work, check=True, capture_output=True)
        package = next(work.glob("*.deb"))
        _unpack_kernel(package, kernel)
        shutil.rmtree(work)
    return kernel


def _unpack_kernel(package: pathlib.Path, kernel: pathlib.Path) -> None:
    modules: dict[str, bytes] = {}
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as dpkg:
        assert dpkg.stdout is not None
        with tarfile.open(fileobj=dpkg.stdout, mode="r|") as content:
            for member in content:
                name = pathlib.PurePosixPath(member.name).name.removesuffix(".xz")
                if member.isfile() and (name in MODULES or name.startswith("vmlinuz-")):
                    source = content.extractfile(member)
                    modules[pathlib.PurePosixPath(member.name).name] = source.read() if source else b""
    image = next(data for name, data in modules.items() if name.startswith("vmlinuz-"))
    parts = {f"modules/{name}": data for name, data in modules.items() if ".ko" in name}
    _replace(kernel.with_suffix(".modules"), archive(_overlay(parts)))
    _replace(kernel, image)


def _root(cache: pathlib.Path) -> pathlib.Path:
    base = cache / f"{SUITE}-{FORMAT}.cpio"
    if not base.exists():
        tar = cache / "root.tar"
        subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
                *("--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*"),
                *(SUITE, str(tar), mirror()),
            ],
            check=True,
        )
        with tarfile.open(tar) as content:
            _replace(base, archive(_members(content)))
        tar.unlink()
    return base


def _replace(path: pathlib.Path, data: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)


Entry = tuple[str, int, bytes]  # path, mode with its type, content or link target


def _members(content: tarfile.TarFile) -> collections.abc.Iterator[Entry]:
    for member in content:
        name = member.name.removeprefix("./").strip("/")
        if not name or name == "." or name.startswith(LEFT_OUT):
            continue
        if member.isdir():
            yield name, 0o040000 | member.mode, b""
        elif member.issym():
            yield name, 0o120777, member.linkname.encode()
        elif member.isfile() or member.islnk():
            source = content.extractfile(member)
            yield name, 0o100000 | member.mode, source.read() if source else b""


def _overlay(files: dict[str, bytes]) -> collections.abc.Iterator[Entry]:
    folders = {str(parent) for name in files for parent in pathlib.PurePosixPath(name).parents if str(parent) != "."}
    for folder in sorted(folders):
        yield folder, 0o040000 | READ_EXECUTE, b""
    for name, data in files.items():
        yield name, 0o100000 | READ_EXECUTE, data


def archive(entries: collections.abc.Iterable[Entry]) -> bytes:
    """A cpio archive ("newc") as the kernel unpacks it; several may follow each other."""
    out = io.BytesIO()
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + path)
        out.write(bytes(-out.tell() % 4))
        out.write(data)
        out.write(bytes(-out.tell() % 4))
    return out.getvalue()
