"""The files of a bundle, found: each with its path in the release, its mode, and where its bytes are."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import fnmatch
import hashlib
import os
import pathlib
import stat
import typing as t

from ...errors import InputError
from ...formats.manifest import ARCHITECTURES, DEPLOY_NAME, config_path, layer_path
from ...formats.release_path import check_paths
from ...links.deflate import BLOCK
from ...text import printable
from ..parallel import Progress, silent
from . import firmware, images
from .source import DEFAULT_EXCLUDE, SOURCE_NAME, Source

COMPOSE_NAME: t.Final = "docker-compose.yml"
VERSION_MARK: t.Final = b"@VERSION@"
"""What stands for the release's version in deploy.sh."""
PLAIN, RUNNABLE = 0o644, 0o755
PAYLOAD: t.Final = ("wheels", "project")
"""Folders that this project makes itself, whole: what a plan excludes is meant for the operator's own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """A file of the release: ``size`` bytes of ``file``, or ``data`` itself.

    :param offset: where they begin in ``file``; None: they are all of it
    """

    path: str
    mode: int
    size: int
    file: pathlib.Path | None = None
    offset: int | None = None
    data: bytes = b""

    def blocks(self) -> collections.abc.Iterator[bytes]:
        """Its bytes, in blocks of ``BLOCK``.

        :raises InputError: ``source_missing``, ``source_invalid`` when it is not the file any more that was found
        """
        if self.file is None:
            yield from (self.data[start : start + BLOCK] for start in range(0, self.size, BLOCK))
            return
        with _reading(self.file, self.path), self.file.open("rb", buffering=0) as file:
            yield from self._read(file.fileno())

    def _read(self, handle: int) -> collections.abc.Iterator[bytes]:
        if self.offset is None and os.fstat(handle).st_size != self.size:
            raise self.changed()
        start = self.offset or 0
        for position in range(start, start + self.size, BLOCK):
            wanted = min(BLOCK, start + self.size - position)
            block = os.pread(handle, wanted, position)
            if len(block) != wanted:
                raise self.changed()
            yield block

    def changed(self) -> InputError:
        """What to raise when its bytes are others than before."""
        return InputError(
            "source_invalid",
            f"{self.file or self.path} was changed while the bundle was built; let nothing write there, build again.",
            path=self.path,
        )


@dataclasses.dataclass(frozen=True)
class Gathered:
    """All that goes into a bundle; ``contents`` in the manifest's order, without ``deploy``.

    :param architectures: that every image runs on, as ``uname -m`` has them
    """

    deploy: Content
    contents: list[Content]
    images: list[images.CollectedImage]
    firmware: list[firmware.CollectedFirmware]
    architectures: tuple[str, ...]


def gather(source: Source, scratch: pathlib.Path, progress: Progress = silent) -> Gathered:
    """Find all files of a bundle, have its images brought and its firmware judged.

    :param scratch: a folder for what images are unpacked to; it must live as long as the contents are read
    :param progress: called with what is done to which image, as ``images.collect`` says
    :raises FleetError: ``source_missing``, ``source_invalid``, ``unsafe_path``, ``disk_full``, and what
        ``images.collect`` and ``firmware.collect`` raise
    """
    found_firmware = _collect_firmware(source)
    contents = [*_plain_files(source), *(_whole(item.source, item.path) for item in found_firmware)]
    check_paths([content.path for content in contents], SOURCE_NAME)  # before minutes go into images
    deploy = _deploy(source)
    found_images = [
        images.collect(
            spec, scratch, source.base, source.version, architectures=source.architectures, progress=progress
        )
        for spec in source.images
    ]
    architectures = source.architectures or _common_architectures(found_images)
    contents += _image_files(found_images)
    check_paths([content.path for content in contents], SOURCE_NAME)
    contents.sort(key=lambda content: content.path)
    return Gathered(deploy, contents, found_images, found_firmware, architectures)


def _common_architectures(found: collections.abc.Sequence[images.CollectedImage]) -> tuple[str, ...]:
    """What all services run on; every Pi where there are none."""
    kinds = {image.service: image.architecture for image in found}
    common = sorted(machine for machine, name in ARCHITECTURES.items() if set(kinds.values()) <= {name})
    if not common:
        listed = ", ".join(f"{service} is for {kind}" for service, kind in sorted(kinds.items()))
        raise InputError(
            "image_architecture",
            f"No machine can run this release: of its services, {listed}, and `requires.architectures` of {SOURCE_NAME}"
            " does not say which; build all of them for the same, such as `linux/arm64`.",
            services=kinds,
        )
    return tuple(common)


def _collect_firmware(source: Source) -> list[firmware.CollectedFirmware]:
    if source.firmware is None:
        return []
    plan = source.firmware
    return firmware.collect(source.base / plan.folder, plan.targets, plan.required)


def _plain_files(source: Source) -> collections.abc.Iterator[Content]:
    if source.compose:
        yield _whole(source.base / source.compose, COMPOSE_NAME)
    for name, folder in source.folders.items():
        exclude = DEFAULT_EXCLUDE if name in PAYLOAD else source.exclude
        yield from walk(source.base / folder, name, source.base, exclude)
    for spec in source.files:
        content = _whole(source.base / spec.src, spec.dest)
        yield content if spec.mode is None else dataclasses.replace(content, mode=spec.mode)


def _deploy(source: Source) -> Content:
    _whole(source.deploy, DEPLOY_NAME)
    with _reading(source.deploy, DEPLOY_NAME):
        data = source.deploy.read_bytes().replace(VERSION_MARK, source.version.encode())
    return Content(DEPLOY_NAME, RUNNABLE, len(data), data=data)


def _image_files(found: list[images.CollectedImage]) -> list[Content]:
    """Configurations and layers, each once however many images share it."""
    files: dict[str, Content] = {}
    for image in found:
        path = config_path(hashlib.sha256(image.config).hexdigest())
        files[path] = Content(path, PLAIN, len(image.config), data=image.config)
        for layer in image.layers:
            path = layer_path(layer.digest)
            files.setdefault(path, Content(path, PLAIN, layer.size, layer.path, layer.offset))
    return list(files.values())


def _whole(file: pathlib.Path, path: str) -> Content:
    """All of a file that bundle.yml names."""
    with _reading(file, path):
        status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise missing(file, path, "it is no regular file")
    return Content(path, RUNNABLE if status.st_mode & stat.S_IXUSR else PLAIN, status.st_size, file)


def walk(
    folder: pathlib.Path, name: str, base: pathlib.Path, exclude: collections.abc.Sequence[str]
) -> collections.abc.Iterator[Content]:
    """The files below ``folder``, as files below ``name``; links are followed as long as they stay inside.

    :param base: the folder of bundle.yml, where links may lead as well
    :param exclude: patterns of fnmatch, for one component of a path each
    :raises InputError: ``source_missing``, ``unsafe_path``
    """
    with _reading(folder, name):
        if not folder.is_dir():
            raise missing(folder, name, "it is no folder")
        walker = _Walker((folder.resolve(), base.resolve()), tuple(exclude))
    yield from walker.files(folder, name, ())


class _Walker:
    def __init__(self, roots: tuple[pathlib.Path, ...], exclude: tuple[str, ...]) -> None:
        self._roots = roots
        self._exclude = exclude

    def files(
        self, folder: pathlib.Path, path: str, above: tuple[pathlib.Path, ...]
    ) -> collections.abc.Iterator[Content]:
        """The files below a folder; ``above`` are the true folders on the way to it."""
        real = folder.resolve()
        if real in above:
            raise _unsafe(folder, "is a link to a folder that it lies in")
        with _reading(folder, path):
            names = sorted(entry.name for entry in folder.iterdir())
        for name in names:
            if not any(fnmatch.fnmatchcase(name, pattern) for pattern in self._exclude):
                yield from self._entry(folder / name, f"{path}/{name}", (*above, real))

    def _entry(
        self, file: pathlib.Path, path: str, above: tuple[pathlib.Path, ...]
    ) -> collections.abc.Iterator[Content]:
        with _reading(file, path):
            if file.is_symlink():
                self._check_link(file)
            is_folder = file.is_dir()
            is_file = not is_folder and file.is_file()
        if is_folder:
            yield from self.files(file, path, above)
        elif is_file:
            yield _whole(file, path)
        else:
            raise _unsafe(file, "is neither a file nor a folder")

    def _check_link(self, file: pathlib.Path) -> None:
        try:
            target = file.resolve(strict=True)
        except (OSError, RuntimeError):  # RuntimeError: a loop, before Python 3.13
            raise _unsafe(file, "is a link to nothing") from None
        if not any(target.is_relative_to(root) for root in self._roots):
            raise _unsafe(file, f"is a link out of the source, to {printable(str(target))}")


def _unsafe(file: pathlib.Path, seen: str) -> InputError:
    shown = printable(str(file))
    return InputError("unsafe_path", f"{shown} {seen}; put the file itself there, or exclude it.", path=shown)


@contextlib.contextmanager
def _reading(file: pathlib.Path, path: str) -> collections.abc.Iterator[None]:
    """Says which file cannot be read, and why. :raises InputError: ``source_missing``"""
    try:
        yield
    except OSError as error:
        raise missing(file, path, os.strerror(error.errno or 0)) from error


def missing(file: pathlib.Path, path: str, seen: str) -> InputError:
    """What to raise when a file that belongs into the release cannot be had."""
    return InputError(
        "source_missing",
        f"Tried to take {printable(str(file))} as {printable(path)} of the bundle: {seen}; make it, or correct"
        f" {SOURCE_NAME}.",
        path=printable(path),
    )
