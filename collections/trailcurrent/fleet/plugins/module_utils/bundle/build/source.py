"""What goes into a bundle: ``bundle.yml`` as a typed plan (docs/bundle-format.md, "bundle.yml").

Everything in it is judged here, before anything is read or built; what its files hold is judged by who reads them.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import os
import pathlib
import re
import time
import typing as t

from ...errors import FleetError, InputError
from ...formats.manifest import (
    ARCHITECTURES,
    DEPLOY_NAME,
    EARLIEST,
    LATEST,
    MANIFEST_NAME,
    MODES,
    SIGNATURE_NAME,
    parse_release_version,
    parse_time,
)
from ...formats.release_path import check_path
from ...links.clock import BUILD_DATE
from ...links.yaml_file import read_yaml
from ...text import printable
from .images import BuildSpec, ImageSpec, Substitution

SOURCE_NAME: t.Final = "bundle.yml"
DEFAULT_DEPLOY: t.Final = pathlib.Path(__file__).parent.parent / DEPLOY_NAME
DEFAULT_EXCLUDE: t.Final = ("*.pyc", "__pycache__", ".git")
"""What no bundle holds; a plan's own patterns are added."""
DEFAULT_OS: t.Final = ("debian-12", "debian-13")
DEFAULT_PYTHON: t.Final = ("3.11", "3.13")
ENGINES: t.Final = ("docker", "podman")
PLATFORM: t.Final = re.compile(r"linux/[a-z0-9]+(?:/v[0-9])?", re.ASCII)
SERVICE: t.Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)  # a Compose service that is a DNS name as well
TEXT_LIMIT: t.Final = 4096  # characters; PATH_MAX of Linux
COUNTER_LIMIT: t.Final = 1 << 40  # what formats/manifest takes for a number
AHEAD: t.Final = 366 * 86400  # s; no release is planned for later, and a Pi judges keys by the newest it has seen

_PYTHON: t.Final = re.compile(r"3\.[0-9]{1,2}", re.ASCII)
_KEYS: t.Final = frozenset(
    {
        *("version", "counter", "released", "oldest_version", "database_one_way", "requires", "images", "compose"),
        *("config", "local_code", "firmware", "wheels", "project", "deploy", "files", "exclude"),
    }
)

Words = collections.abc.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True)
class FileSpec:
    """One more file: from ``src``, relative to bundle.yml, to ``dest`` in the release; ``mode`` None: as it is."""

    src: str
    dest: str
    mode: int | None


@dataclasses.dataclass(frozen=True)
class FirmwareSpec:
    """The firmware's folder (or its parent of ``wired/``), the chip of each type, and the types that must be there."""

    folder: str
    targets: collections.abc.Mapping[str, str]
    required: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Source:
    """The plan of a bundle. Paths are relative to ``base``, the folder of bundle.yml, or absolute.

    :param released: s since the epoch, as in the manifest
    :param architectures: that each service must run on; None: those that all of them do
    :param folders: folder in the release -> folder here, for what is taken over as it is
    :param exclude: patterns of fnmatch; a file is left out when one of its path's components matches one
    """

    base: pathlib.Path
    version: str
    counter: int
    released: int
    oldest_version: str | None
    database_one_way: bool
    os: tuple[str, ...]
    python: tuple[str, ...]
    architectures: tuple[str, ...] | None
    images: tuple[ImageSpec, ...]
    firmware: FirmwareSpec | None
    compose: str | None
    folders: collections.abc.Mapping[str, str]
    files: tuple[FileSpec, ...]
    deploy: pathlib.Path
    exclude: tuple[str, ...]


def read_source(
    path: pathlib.Path, overrides: Words, environment: collections.abc.Mapping[str, str] | None = None
) -> Source:
    """The plan in ``path``: bundle.yml, or the folder that it lies in.

    :param overrides: keys of bundle.yml that win over the file's, whole; those that are None do not count
    :param environment: where ``SOURCE_DATE_EPOCH`` may stand, which says ``released`` when bundle.yml does not; None:
        this process's own
    :raises InputError: ``source_missing``, ``source_invalid`` (naming the key), ``unsafe_path``
    """
    file = path
    with contextlib.suppress(OSError):  # what is wrong with it, reading it tells
        file = path / SOURCE_NAME if path.is_dir() else path
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise _invalid(str(file), "it is no table of keys and values")
    given = {name: value for name, value in overrides.items() if value is not None}
    return parse_source({**content, **given}, file.resolve().parent, os.environ if environment is None else environment)


def parse_source(content: Words, base: pathlib.Path, environment: collections.abc.Mapping[str, str]) -> Source:
    """The plan that ``content`` spells out, as ``read_source`` says.

    :raises InputError: ``source_invalid``, ``unsafe_path``
    """
    table = _Table(content, "", _KEYS)
    requires = table.table("requires", {"os", "python", "architectures"})
    return Source(
        base=base,
        version=table.version("version"),
        counter=table.number("counter"),
        released=_released(table, environment),
        oldest_version=_oldest_version(table),
        database_one_way=table.flag("database_one_way"),
        os=requires.texts("os", DEFAULT_OS),
        python=requires.texts("python", DEFAULT_PYTHON, _PYTHON, 'such as "3.11", between quotes'),
        architectures=_architectures(requires),
        images=_images(table),
        firmware=_firmware(table),
        compose=table.optional("compose"),
        folders={name: table.text(name) for name in ("config", "local_code", "wheels", "project") if table.has(name)},
        files=tuple(_file(item) for item in table.tables("files", {"src", "dest", "mode"})),
        deploy=base / (table.optional("deploy") or DEFAULT_DEPLOY),
        exclude=tuple(dict.fromkeys((*DEFAULT_EXCLUDE, *table.texts("exclude", ())))),
    )


def _oldest_version(table: _Table) -> str | None:
    if not table.has("oldest_version"):
        return None
    oldest, version = table.version("oldest_version"), table.version("version")
    if parse_release_version(oldest) > parse_release_version(version):
        raise table.invalid("oldest_version", f"{oldest} is later than {version}, which could then follow no release")
    return oldest


def _released(table: _Table, environment: collections.abc.Mapping[str, str]) -> int:
    """When it is released, within reason."""
    released = _time_of_release(table, environment)
    if released > max(time.time(), BUILD_DATE) + AHEAD:
        raise table.invalid(
            "released", "it (or SOURCE_DATE_EPOCH) is more than a year from now; see whether the year is right"
        )
    return released


def _time_of_release(table: _Table, environment: collections.abc.Mapping[str, str]) -> int:
    """As the plan or the environment says: a clock's time would make each build another one."""
    if table.has("released"):
        try:
            return parse_time(table.text("released"))
        except ValueError:
            raise table.invalid("released", "it is no time of UTC from 1980 to 2107 as 2026-11-01T12:00:00Z") from None
    epoch = environment.get("SOURCE_DATE_EPOCH", "")
    if not epoch:
        raise table.invalid("released", "it is not there, and SOURCE_DATE_EPOCH is not set: one of them says the time")
    if not re.fullmatch(r"[0-9]{1,12}", epoch, re.ASCII) or not EARLIEST <= int(epoch) <= LATEST:
        raise table.invalid("released", f"SOURCE_DATE_EPOCH is {printable(epoch)!r}, no second from 1980 to 2107")
    return int(epoch)


def _architectures(requires: _Table) -> tuple[str, ...] | None:
    if not requires.has("architectures"):
        return None
    named = requires.texts("architectures", ())
    if not named:
        raise requires.invalid("architectures", "it names none: nothing could run this release")
    for name in named:
        if name not in ARCHITECTURES:
            raise requires.invalid("architectures", f"{printable(name)!r} is none of {', '.join(ARCHITECTURES)}")
    return tuple(sorted(set(named)))


def _images(table: _Table) -> tuple[ImageSpec, ...]:
    items = table.tables("images", {"service", "name", "tar", "engine", "build"})
    images = tuple(_image(item) for item in items)
    services = [image.service for image in images]
    for service in services:
        if services.count(service) > 1:
            raise table.invalid("images", f"the service {service!r} is there twice")
    return images


def _image(item: _Table) -> ImageSpec:
    build = _build(item.table("build", {"context", "file", "platform", "arguments", "substitutions"}))
    tar, engine = item.optional("tar"), item.optional("engine")
    if tar and (build or engine):
        raise item.invalid("tar", "an image comes from a tar or from an engine, not from both")
    if engine is not None and engine not in ENGINES:
        raise item.invalid("engine", f"{printable(engine)!r} is none of {', '.join(ENGINES)}")
    service = item.matching("service", SERVICE, "such as backend: at most 63 of a-z, 0-9, - and _")
    return ImageSpec(service=service, name=item.text("name"), tar=tar, engine=engine, build=build)


def _build(item: _Table) -> BuildSpec | None:
    if not item.given:
        return None
    arguments = item.mapping("arguments")
    substitutions = item.tables("substitutions", {"file", "text"})
    return BuildSpec(
        context=item.text("context"),
        file=item.optional("file") or "Dockerfile",
        platform=item.matching("platform", PLATFORM, "such as linux/arm64") if item.has("platform") else None,
        arguments=arguments,
        substitutions=tuple(Substitution(one.text("file"), one.text("text")) for one in substitutions),
    )


def _firmware(table: _Table) -> FirmwareSpec | None:
    item = table.table("firmware", {"folder", "targets", "required"})
    if not item.given:
        return None
    return FirmwareSpec(item.text("folder"), item.mapping("targets"), item.texts("required", ()))


def _file(item: _Table) -> FileSpec:
    dest = item.text("dest")
    check_path(dest, SOURCE_NAME)
    if dest.lower() in {MANIFEST_NAME, SIGNATURE_NAME, DEPLOY_NAME}:
        raise item.invalid("dest", f"{dest!r} is the bundle's own (`deploy` names the script that it begins with)")
    return FileSpec(item.text("src"), dest, _mode(item))


def _mode(item: _Table) -> int | None:
    if not item.has("mode"):
        return None
    modes = {f"{mode:04o}": mode for mode in MODES}
    mode = item.value("mode")
    if not isinstance(mode, str) or mode not in modes:
        raise item.invalid("mode", f"it is neither {' nor '.join(map(repr, modes))} (between quotes)")
    return modes[mode]


class _Table:
    """A table of bundle.yml that knows its place in it, and refuses a key that nobody reads."""

    def __init__(self, content: object, place: str, keys: collections.abc.Collection[str]) -> None:
        self._place = place
        self.given = content is not None
        if content is not None and not isinstance(content, collections.abc.Mapping):
            raise _invalid(place, "it is no table of keys and values")
        self._content: Words = {} if content is None else content
        for key in self._content:
            if key not in keys:
                raise self.invalid(printable(str(key)), f"there is no such key; there are {', '.join(sorted(keys))}")

    def invalid(self, key: str, seen: str) -> InputError:
        """What to raise for one of its keys."""
        return _invalid(f"{self._place}.{key}" if self._place else key, seen)

    def has(self, key: str) -> bool:
        """Whether the key is there; null counts as not."""
        return self._content.get(key) is not None

    def value(self, key: str) -> t.Any:
        """What the key says; it must be there."""
        if not self.has(key):
            raise self.invalid(key, "it is not there")
        return self._content[key]

    def text(self, key: str) -> str:
        """A text of one line."""
        value = self.value(key)
        if not isinstance(value, str) or not value or printable(value, TEXT_LIMIT) != value:
            raise self.invalid(key, "it is no text of one line (put quotes around what looks like a number)")
        return value

    def optional(self, key: str) -> str | None:
        """A text of one line, or None."""
        return self.text(key) if self.has(key) else None

    def matching(self, key: str, pattern: re.Pattern[str], such: str) -> str:
        """A text that fits a pattern; ``such`` says it in words."""
        text = self.text(key)
        if not pattern.fullmatch(text):
            raise self.invalid(key, f"{text!r} is not {such}")
        return text

    def version(self, key: str) -> str:
        """A release's version."""
        text = self.text(key)
        try:
            parse_release_version(text)
        except FleetError:
            raise self.invalid(key, f"{text!r} is no version as 1.2.0") from None
        return text

    def number(self, key: str) -> int:
        """A number from 1 on."""
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= COUNTER_LIMIT:
            raise self.invalid(key, f"it is no number from 1 to {COUNTER_LIMIT}")
        return value

    def flag(self, key: str) -> bool:
        """True or false; false where it is not there."""
        value = self.value(key) if self.has(key) else False
        if not isinstance(value, bool):
            raise self.invalid(key, "it is neither true nor false")
        return value

    def texts(
        self, key: str, default: tuple[str, ...], pattern: re.Pattern[str] | None = None, such: str = ""
    ) -> tuple[str, ...]:
        """A list of texts, each of which fits ``pattern``; ``default`` where it is not there."""
        texts = tuple(self._list(key)) if self.has(key) else default
        for text in texts:
            if not isinstance(text, str) or not text or printable(text, TEXT_LIMIT) != text:
                raise self.invalid(key, f"{printable(repr(text))} is no text; write it between quotes")
            if pattern and not pattern.fullmatch(text):
                raise self.invalid(key, f"{text!r} is not {such}")
        return texts

    def mapping(self, key: str) -> dict[str, str]:
        """A table of texts."""
        value = self.value(key) if self.has(key) else {}
        pairs = value.items() if isinstance(value, collections.abc.Mapping) else [(None, None)]
        for name, text in pairs:
            if not isinstance(name, str) or not isinstance(text, str):
                raise self.invalid(key, "it is no table of texts (put quotes around what looks like a number)")
        return dict(pairs)

    def table(self, key: str, keys: collections.abc.Collection[str]) -> _Table:
        """The table below a key; an empty one, not ``given``, where there is none."""
        return _Table(self._content.get(key), f"{self._place}.{key}".lstrip("."), keys)

    def tables(self, key: str, keys: collections.abc.Collection[str]) -> list[_Table]:
        """The tables of a list."""
        items = self._list(key) if self.has(key) else []
        for number, item in enumerate(items):
            if item is None:
                raise self.invalid(f"{key}[{number}]", "it is empty")
        return [_Table(item, f"{self._place}.{key}[{number}]".lstrip("."), keys) for number, item in enumerate(items)]

    def _list(self, key: str) -> list[t.Any]:
        value = self.value(key)
        if not isinstance(value, list):
            raise self.invalid(key, "it is no list")
        return value


def _invalid(place: str, seen: str) -> InputError:
    return InputError(
        "source_invalid", f"`{printable(place)}` of {SOURCE_NAME} cannot be used: {seen}; correct it.", key=place
    )
