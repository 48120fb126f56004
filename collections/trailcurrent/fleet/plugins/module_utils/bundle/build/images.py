"""Container images on their way into a bundle, and out of it into an engine."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import os
import pathlib
import re
import shutil
import stat
import tempfile
import typing as t
import zlib

from ...errors import InputError
from ...formats import image_archive, tar_archive
from ...formats.manifest import ARCHITECTURES, ImageEntry, config_path, layer_path
from ...formats.release_path import check_path
from ...links.container_engine import check_name, find_engine
from ...text import printable
from ..parallel import Advance, Progress, Task, run, silent
from .scratch import FULL, cause

CHUNK: t.Final = 1024 * 1024  # bytes in memory at a time, of each layer under way
TAG_DIGITS: t.Final = 16  # of the configuration's digest; as all releases on a Pi are told apart
_GUNZIP: t.Final = 16 + zlib.MAX_WBITS  # zlib's own notation for gzip
_SERVICE: t.Final = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")  # what can be a part of an image's name


@dataclasses.dataclass(frozen=True)
class Substitution:
    """``text`` in the file ``file`` of a build context stands for the release's version."""

    file: str
    text: str


@dataclasses.dataclass(frozen=True)
class BuildSpec:
    """How an engine builds an image. ``context`` is relative to bundle.yml, ``file`` to the context."""

    context: str
    file: str = "Dockerfile"
    platform: str | None = None
    arguments: collections.abc.Mapping[str, str] = dataclasses.field(default_factory=dict)
    substitutions: tuple[Substitution, ...] = ()


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """An image of bundle.yml: from ``tar`` (relative to bundle.yml), from ``build``, or by name from an engine."""

    service: str
    name: str
    tar: str | None = None
    engine: str | None = None
    build: BuildSpec | None = None


@dataclasses.dataclass(frozen=True)
class LayerFile:
    """A layer: the ``size`` bytes at ``offset`` of ``path``, whose SHA-256 is ``digest``, which was checked."""

    digest: str
    path: pathlib.Path
    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class CollectedImage:
    """An image that is whole. ``architecture`` is a container's name for it (``arm64``). A layer may come twice."""

    service: str
    name: str
    architecture: str
    config: bytes
    layers: list[LayerFile]


def collect(
    spec: ImageSpec,
    scratch: pathlib.Path,
    base: pathlib.Path,
    version: str,
    *,
    architectures: collections.abc.Collection[str] | None = None,
    progress: Progress = silent,
) -> CollectedImage:
    """The image that ``spec`` names, every layer hashed and found to be the one that its configuration names.

    :param scratch: a folder for what an engine saves and for unpacked layers; must live as long as the result is read
    :param base: the folder that the paths in ``spec`` are relative to
    :param version: of the release; what substitutions put in
    :param architectures: that the release is to run on, as ``uname -m`` has them; None: it does not say
    :param progress: called with ``building``, ``saving``, ``unpacking`` or ``reading image <service>``, and bytes: 0 of
        0 while an engine works
    :raises InputError: ``source_missing``, ``source_invalid``, ``image_unknown``, ``image_invalid``,
        ``image_architecture``, ``disk_full``
    :raises LinkError: ``engine_unavailable``
    """
    _check_names(spec)
    with _sentences(spec, scratch):
        path = _archive(spec, scratch, base, version, progress)
        subject = f"{path.name} of service {spec.service}"
        with path.open("rb") as file:
            compressed = image_archive.is_gzip(file.read(2))
        path = _unpacked(path, scratch, subject, _phase("unpacking", spec), progress) if compressed else path
        with path.open("rb") as file:
            image = image_archive.read_image_archive(_reader(file), os.fstat(file.fileno()).st_size, subject)
        _check_architecture(image.architecture, architectures, spec)
        layers = _layers(image, _Place(path, scratch, subject), _phase("reading", spec), progress)
    return CollectedImage(spec.service, spec.name, image.architecture, image.config, layers)


def _phase(act: str, spec: ImageSpec) -> str:
    return f"{act} image {spec.service}"


@contextlib.contextmanager
def _sentences(spec: ImageSpec, scratch: pathlib.Path) -> collections.abc.Iterator[None]:
    """Says what of an image cannot be read or kept. :raises InputError: ``source_missing``, ``disk_full``"""
    try:
        yield
    except OSError as error:
        number, file, why = cause(error)
        if number in FULL:
            raise _no_room(spec, scratch, why) from error
        raise _missing(spec, f"{file} cannot be read: {why}") from error


def pinned_name(image: ImageEntry) -> str:
    """The name of this very image on a Pi: no other image ever takes it, and `docker image prune` spares it."""
    return f"trailcurrent/{image.service}:{image.config[:TAG_DIGITS]}"


def present_layers(image: ImageEntry, known: collections.abc.Iterable[collections.abc.Sequence[str]]) -> int:
    """How many of the image's first layers an engine has, in this order: only those may be left out of an archive.

    :param known: the layers of each image that the engine has (``docker image inspect``, ``.RootFS.Layers``)
    """
    wanted = [f"sha256:{layer}" for layer in image.layers]
    return max((_common(wanted, layers) for layers in known), default=0)


def _common(one: collections.abc.Sequence[str], other: collections.abc.Sequence[str]) -> int:
    pairs = zip(one, other, strict=False)
    return sum(1 for _pair in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def load_archive(
    image: ImageEntry,
    read_part: collections.abc.Callable[[str], collections.abc.Iterator[bytes]],
    sizes: collections.abc.Mapping[str, int],
    present: int = 0,
) -> collections.abc.Iterator[bytes]:
    """A tar stream for the standard input of `docker load`, which gives the image ``sha256:<config>``.

    It is tagged with ``pinned_name`` alone: `:latest` of a release that runs is not moved. Proven with Docker 20.10 and
    26.1, on which leaving layers out works as well (molecule/images), and with Podman, which wants them all. So does a
    Docker that keeps images in containerd (the default of new installations since 29), where ids are others anyway.

    :param read_part: the content of a file of the release by its path (``images/…``), in chunks
    :param sizes: the bytes of each, by the same paths
    :param present: the first layers to leave out, by ``present_layers``
    :raises InputError: ``bundle_damaged`` when a part has not the size it should have
    """
    documents = image_archive.load_manifest(image.config, image.layers, [pinned_name(image)])
    yield tar_archive.file_header("manifest.json", len(documents)) + documents + tar_archive.padding(len(documents))
    yield from _part(f"{image.config}.json", config_path(image.config), read_part, sizes)
    for layer in dict.fromkeys(image.layers[present:]):
        if layer not in image.layers[:present]:
            yield from _part(f"{layer}.tar", layer_path(layer), read_part, sizes)
    yield tar_archive.END


def _part(
    name: str,
    path: str,
    read_part: collections.abc.Callable[[str], collections.abc.Iterator[bytes]],
    sizes: collections.abc.Mapping[str, int],
) -> collections.abc.Iterator[bytes]:
    size = left = sizes[path]
    yield tar_archive.file_header(name, size)
    for chunk in read_part(path):
        left -= len(chunk)
        if left < 0:
            break
        yield chunk
    if left:
        raise InputError(
            "bundle_damaged",
            f"{path} has not the {size} bytes that the release's manifest names; copy or download the bundle again.",
            entry=path,
        )
    yield tar_archive.padding(size)


def _check_names(spec: ImageSpec) -> None:
    if not _SERVICE.fullmatch(spec.service):
        raise InputError(
            "source_invalid",
            f"The image of service {printable(spec.service)!r} cannot go into the bundle: a service's name is of "
            "lower-case letters and digits, with single `.`, `_` or `-` between; correct it in bundle.yml.",
            service=printable(spec.service),
        )
    check_name(spec.name)


def _archive(
    spec: ImageSpec, scratch: pathlib.Path, base: pathlib.Path, version: str, progress: Progress
) -> pathlib.Path:
    """The archive of the image, from wherever it comes."""
    if spec.tar is not None:
        path = base / spec.tar
        if not path.is_file():
            raise _missing(spec, f"{spec.tar} is not there")
        return path
    # In a folder of its own: engines make the file themselves, and a service may have an image per architecture.
    path = pathlib.Path(tempfile.mkdtemp(dir=scratch)) / f"{spec.service}.tar"
    if spec.build is None:
        progress(_phase("saving", spec), 0, 0)
        find_engine(spec.engine, spec.name).save(spec.name, path)
        return path
    progress(_phase("building", spec), 0, 0)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        context = _context(spec, spec.build, pathlib.Path(folder), base, version)
        engine = find_engine(spec.engine)
        identifier = engine.build(spec.name, context, spec.build.file, spec.build.platform, spec.build.arguments)
    progress(_phase("saving", spec), 0, 0)
    engine.save(identifier, path)
    return path


def _context(spec: ImageSpec, build: BuildSpec, folder: pathlib.Path, base: pathlib.Path, version: str) -> pathlib.Path:
    """The build context: the source tree itself, or a copy of it in ``folder`` with the version put in."""
    source = base / build.context
    if not (source / build.file).is_file():
        raise _missing(spec, f"{build.context}/{build.file} is not there")
    if not build.substitutions:
        return source
    copy = folder / "context"
    shutil.copytree(source, copy, symlinks=True, ignore=_special)
    for substitution in build.substitutions:
        _substitute(spec, copy, substitution, version)
    return copy


def _special(folder: str, names: list[str]) -> set[str]:
    """Sockets, pipes and devices: no image can get one from its context."""
    kinds = {name: (pathlib.Path(folder) / name).lstat().st_mode for name in names}
    return {
        name for name, mode in kinds.items() if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))
    }


def _substitute(spec: ImageSpec, copy: pathlib.Path, substitution: Substitution, version: str) -> None:
    """Put the version in; times stay, so that an engine's build cache sees the content alone change."""
    check_path(substitution.file, f"the substitution of image {spec.service}")
    path = copy / substitution.file
    if not path.is_file() or not path.resolve().is_relative_to(copy.resolve()):
        raise _missing(spec, f"{substitution.file}, in which the version is to stand, is no file of its context")
    before, times = path.read_bytes(), path.stat()
    after = before.replace(substitution.text.encode(), version.encode())
    if not substitution.text or after == before:
        raise InputError(
            "source_invalid",
            f"The version cannot be put into {substitution.file} of image {spec.service}: it does not hold "
            f"{printable(substitution.text)!r}; correct `substitutions` in bundle.yml.",
            service=spec.service,
        )
    path.write_bytes(after)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _missing(spec: ImageSpec, seen: str) -> InputError:
    return InputError(
        "source_missing",
        f"The image of service {spec.service} cannot go into the bundle: {printable(seen)}; make it, or correct its "
        "path in bundle.yml.",
        service=spec.service,
    )


def _check_architecture(found: str, wanted: collections.abc.Collection[str] | None, spec: ImageSpec) -> None:
    """Whether the image runs on all machines that the release is to run on: a service has one image."""
    machines = {machine: name for machine, name in ARCHITECTURES.items() if wanted is None or machine in wanted}
    runs = found in machines.values() if wanted is None else [found] == list(machines.values())
    if runs:
        return
    other = next((name for name in machines.values() if name != found), "arm64")
    said = "Pis are" if wanted is None else "`requires.architectures` of bundle.yml says"
    raise InputError(
        "image_architecture",
        f"The image {spec.name} of service {spec.service} cannot go into the bundle: it is for {printable(found)}, and"
        f" {said} {' and '.join(machines)}; build it for `linux/{other}`, or require only what every image is for.",
        service=spec.service,
        architecture=printable(found),
    )


class _Place(t.NamedTuple):
    """Where an archive is, where its layers are unpacked, and what errors call it."""

    path: pathlib.Path
    scratch: pathlib.Path
    subject: str


def _layers(image: image_archive.ArchivedImage, place: _Place, phase: str, progress: Progress) -> list[LayerFile]:
    """All layers checked, on all cores; one that comes twice is read once."""
    distinct = {layer.diff_id: layer for layer in image.layers}
    files: dict[str, LayerFile] = {}

    def read(layer: image_archive.Layer, advance: Advance) -> None:
        files[layer.diff_id] = _layer(layer, place, advance)

    tasks = [Task(layer.size, functools.partial(read, layer)) for layer in distinct.values()]
    run(tasks, phase, sum(layer.size for layer in distinct.values()), progress)
    return [files[layer.diff_id] for layer in image.layers]


def _layer(layer: image_archive.Layer, place: _Place, advance: Advance) -> LayerFile:
    """The layer where it lies, or unpacked in the scratch folder."""
    chunks = _chunks(place.path, layer.offset, layer.size, place.subject, advance)
    if layer.gzipped:
        target = pathlib.Path(tempfile.mkdtemp(dir=place.scratch)) / f"{layer.diff_id}.tar"
        found, size = _gunzip(chunks, target, place.subject)
        result = LayerFile(layer.diff_id, target, 0, size)
    else:
        found = _sha256(chunks)
        result = LayerFile(layer.diff_id, place.path, layer.offset, layer.size)
    if found != layer.diff_id:
        seen = f"a layer has the SHA-256 {found[:16]}…, and its configuration names {layer.diff_id[:16]}…"
        raise image_archive.unusable(place.subject, seen)
    return result


def _unpacked(path: pathlib.Path, scratch: pathlib.Path, subject: str, phase: str, progress: Progress) -> pathlib.Path:
    """A whole archive that was compressed, unpacked."""
    target = pathlib.Path(tempfile.mkdtemp(dir=scratch)) / "unpacked.tar"
    size = path.stat().st_size

    def work(advance: Advance) -> None:
        _gunzip(_chunks(path, 0, size, subject, advance), target, subject)

    run([Task(size, work)], phase, size, progress)
    return target


def _gunzip(chunks: collections.abc.Iterator[bytes], target: pathlib.Path, subject: str) -> tuple[str, int]:
    """Unpack a part of a file; the SHA-256 and the size of what came out."""
    digest = hashlib.sha256()
    with target.open("wb") as out:
        try:
            for chunk in _inflate(chunks):
                digest.update(chunk)
                out.write(chunk)
                if out.tell() > image_archive.LAYER_LIMIT:
                    raise ValueError(f"it unpacks to more than {image_archive.LAYER_LIMIT} bytes")
        except (zlib.error, ValueError) as error:
            raise image_archive.unusable(subject, f"what it has compressed is damaged ({error})") from error
        return digest.hexdigest(), out.tell()


def _inflate(chunks: collections.abc.Iterator[bytes]) -> collections.abc.Iterator[bytes]:
    """The content of gzip members one after another (RFC 1952), at most ``CHUNK`` bytes at a time."""
    engine = zlib.decompressobj(_GUNZIP)
    for chunk in chunks:
        data = chunk
        while data:
            if engine.eof:
                engine = zlib.decompressobj(_GUNZIP)
            yield engine.decompress(data, CHUNK)
            data = engine.unconsumed_tail or engine.unused_data
    if not engine.eof:
        raise ValueError("it ends too early")


def _no_room(spec: ImageSpec, scratch: pathlib.Path, why: str) -> InputError:
    return InputError(
        "disk_full",
        f"{scratch} cannot take the image of service {spec.service} while it is read: {printable(why)}; free space on"
        " that disk, or name another folder.",
        path=str(scratch),
    )


def _reader(file: t.BinaryIO) -> tar_archive.Read:
    descriptor = file.fileno()
    return lambda offset, size: os.pread(descriptor, size, offset)


def _chunks(
    path: pathlib.Path, offset: int, size: int, subject: str, advance: Advance
) -> collections.abc.Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        left = size
        while left:
            chunk = file.read(min(CHUNK, left))
            if not chunk:
                raise image_archive.unusable(subject, "it became shorter while it was read")
            left -= len(chunk)
            advance(len(chunk))
            yield chunk


def _sha256(chunks: collections.abc.Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
