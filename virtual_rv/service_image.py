"""Images of the RV's Docker services, made on the spot from Debian packages: no registry, no engine and no root.

    python -m virtual_rv images --directory images --version 1.2.0

writes `images/<service>.tar` for each of `SERVICES`, as `docker save` would: small, and real. They share their base
layer, and a new version changes the top one alone. `docker run --rm NAME version` prints `<service> <version>`; without
an argument a service serves its files by HTTP. The same packages and version give the same bytes.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import re
import shlex
import subprocess
import tarfile
import typing as t

BASE: t.Final = ("busybox-static", "tzdata")
"""The packages of the layer that all images share."""
EPOCH: t.Final = 1_577_836_800
"""s since the epoch, 2020-01-01: the time of what no package brings."""
CREATED: t.Final = "2020-01-01T00:00:00Z"
DOWNLOAD_TIMEOUT: t.Final = 300.0  # s; some megabytes over a slow link
# What `apt-get --print-uris` prints: the address, the file's name, its size and digest.
_PACKAGE: t.Final = re.compile(r"'[^']+' (\S+\.deb) \d+ \S+")
_BUSYBOX: t.Final = ("bin/busybox", "usr/bin/busybox")  # before and since Debian merged /usr

Tree = dict[str, tuple[tarfile.TarInfo, bytes]]
"""Path -> header and content."""


class PackageError(Exception):
    """The Debian packages cannot be had; the text says why, and what to do."""


@dataclasses.dataclass(frozen=True)
class Service:
    """One service (PROTOCOLS.md, Docker services of an RV in the field), and the packages that it has besides."""

    name: str
    port: int
    packages: tuple[str, ...] = ()

    @property
    def image(self) -> str:
        """Its image's name in the field."""
        return f"trailcurrent-in-vehicle-{self.name}:latest"


SERVICES: t.Final = (
    Service("backend", 3000),
    Service("frontend", 8443, ("libjs-jquery",)),
    Service("tileserver", 8080, ("libjs-leaflet",)),
)


def write_images(folder: pathlib.Path, version: str) -> list[pathlib.Path]:
    """Write the image of each service; return the files. Packages are kept in `folder/packages` for the next time.

    :raises PackageError: when they cannot be had
    :raises OSError: when the folder cannot be written
    """
    names = [*BASE, *(package for service in SERVICES for package in service.packages)]
    trees = {name: read_tree(data) for name, data in _packages(names, folder / "packages").items()}
    architecture = _output(["dpkg", "--print-architecture"]).strip()
    files = []
    for service in SERVICES:
        path = folder / f"{service.name}.tar"
        scratch = path.with_suffix(".part")
        scratch.write_bytes(make_image(service, version, architecture, trees))
        scratch.replace(path)
        files.append(path)
    return files


def make_image(service: Service, version: str, architecture: str, trees: collections.abc.Mapping[str, Tree]) -> bytes:
    """An archive as `docker save` writes it: base layer, layer of the service's packages, layer of this version.

    :param architecture: as Debian and container images both call it (``arm64``)
    :param trees: the files of each package
    :raises PackageError: when busybox is not where Debian puts it
    """
    base = _merge(trees[name] for name in BASE)
    busybox = next((path for path in _BUSYBOX if path in base), None)
    if busybox is None:
        raise PackageError(f"busybox-static has none of {', '.join(_BUSYBOX)}; this Debian release is not known")
    layers = [_layer(base)]
    if service.packages:
        layers.append(_layer(_merge(trees[name] for name in service.packages)))
    layers.append(_layer(_own_files(service, version)))
    config = _config(service, architecture, [f"/{busybox}", "sh", "/srv/start"], layers)
    return _archive(service, config, layers)


def read_tree(package: bytes) -> Tree:
    """The files of a package's tar, with nothing in it of the machine that unpacks it."""
    tree: Tree = {}
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if name in {"", "."}:
                continue
            tree[name] = _plain(archive, member, name)
    return tree


def _plain(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> tuple[tarfile.TarInfo, bytes]:
    """One entry; a hard link becomes a file of its own, since its target may come after it in a layer."""
    content = b""
    if (member.isreg() or member.islnk()) and (file := archive.extractfile(member)) is not None:
        content = file.read()
        member.type, member.linkname, member.size = tarfile.REGTYPE, "", len(content)
    member.name, member.uname, member.gname, member.uid, member.gid = name, "", "", 0, 0
    member.pax_headers = {}
    return member, content


def _merge(trees: collections.abc.Iterable[Tree]) -> Tree:
    return {path: entry for tree in trees for path, entry in tree.items()}


def _own_files(service: Service, version: str) -> Tree:
    says = shlex.quote(f"{service.name} {version}")
    start = f'[ "$1" = version ] && exec busybox echo {says}\nexec busybox httpd -f -p {service.port} -h /srv/www\n'
    files = {"srv/start": start, "srv/www/version.txt": f"{service.name} {version}\n"}
    tree: Tree = {folder: (_entry(folder, b"", tarfile.DIRTYPE), b"") for folder in ("srv", "srv/www", "tmp")}
    return tree | {path: (_entry(path, text.encode()), text.encode()) for path, text in files.items()}


def _entry(name: str, content: bytes, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size, entry.mtime = kind, len(content), EPOCH
    entry.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return entry


def _layer(tree: Tree) -> bytes:
    return _tar([tree[path] for path in sorted(tree)])


def _tar(entries: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry, content in entries:
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def _config(service: Service, architecture: str, entrypoint: list[str], layers: list[bytes]) -> bytes:
    content = {
        "architecture": architecture,
        "os": "linux",
        "created": CREATED,
        "config": {
            "Entrypoint": entrypoint,
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "ExposedPorts": {f"{service.port}/tcp": {}},
            "WorkingDir": "/srv",
        },
        "history": [{"created": CREATED, "created_by": "virtual_rv"} for _layer in layers],
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}" for layer in layers]},
    }
    return json.dumps(content, sort_keys=True).encode()


def _archive(service: Service, config: bytes, layers: list[bytes]) -> bytes:
    files = {f"{_sha256(layer)}/layer.tar": layer for layer in layers}
    names = {"Config": f"{_sha256(config)}.json", "Layers": list(files), "RepoTags": [service.image]}
    files |= {f"{_sha256(config)}.json": config, "manifest.json": json.dumps([names], sort_keys=True).encode()}
    return _tar([(_entry(name, content), content) for name, content in files.items()])


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _packages(names: list[str], folder: pathlib.Path) -> dict[str, bytes]:
    """The tar of each package, downloaded by apt (which checks Debian's signatures) unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    files = _PACKAGE.findall(_output(["apt-get", "download", "--print-uris", *names]))
    if any(not (folder / file).is_file() for file in files):
        _output(["apt-get", "--quiet", "download", *names], folder)
    found = {file.partition("_")[0]: folder / file for file in files}
    missing = [name for name in names if not (name in found and found[name].is_file())]
    if missing:
        raise PackageError(f"apt has not downloaded {', '.join(missing)}; run `apt-get update`, then this again")
    return {name: _output_bytes(["dpkg-deb", "--fsys-tarfile", str(found[name])]) for name in names}


def _output(command: list[str], folder: pathlib.Path | None = None) -> str:
    return _output_bytes(command, folder).decode()


def _output_bytes(command: list[str], folder: pathlib.Path | None = None) -> bytes:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DOWNLOAD_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackageError(f"`{command[0]}` cannot be run ({error}); service images are made on Debian") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise PackageError(f"`{' '.join(command[:2])}` says {said}; run `apt-get update`, then this again")
    return done.stdout
