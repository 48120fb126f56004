"""Brings each type's firmware from its release page into the firmware folder, and records what came.

A type's images come all or none. A type that fails keeps what it had, and does not keep the others from theirs.
"""

from __future__ import annotations

import collections.abc
import concurrent.futures
import dataclasses
import functools
import hashlib
import typing as t

from ..errors import FleetError, RefusedError
from ..formats.esp_image import Image, check_chip, check_one_chip, parse_image, parse_version
from ..formats.firmware_lock import Lock, LockedType
from ..formats.firmware_sources import Release, Source
from ..links.firmware_file import read_firmware
from ..links.release_page import ReleasePage
from .home import FirmwareHome, Staging
from .plan import Plan, exchanged, is_whole, make_plan, record

PARALLEL: t.Final = 4  # connections; a host of releases serves a person's browser with six
UNKNOWN: t.Final = "known once it is downloaded"

Row = dict[str, t.Any]
Key: t.TypeAlias = "tuple[str, str | None]"
"""Repository, and tag or None for the newest."""


@dataclasses.dataclass(frozen=True)
class Fetched:
    """What a run did, or in check mode would do.

    :param rows: one for each type, sorted: type, status (``updated``, ``up_to_date``, ``no_release``, ``failed``),
        repository, version, from_version, files, downloaded, removed, code, error
    :param errors: by type
    :param before: by type, version and digests; ``after`` likewise
    """

    changed: bool
    rows: list[Row]
    errors: dict[str, FleetError]
    before: dict[str, Row]
    after: dict[str, Row]
    warnings: list[str]


def fetch(
    home: FirmwareHome, sources: collections.abc.Sequence[Source], page: ReleasePage, *, check: bool = False
) -> Fetched:
    """Bring the folder to what the sources say.

    :param check: ask for releases, and change nothing
    :raises InputError: ``invalid_option``: the lock file cannot be used
    :raises LinkError: ``state_unwritable``
    """
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        run = _Fetch(home, sources, page, pool)
        run.plan()
        if not check:
            run.perform()
        return run.result()


class _Buffer:
    """A download in memory: at most one image for each connection."""

    def __init__(self) -> None:
        self.data = bytearray()

    def begin(self) -> None:
        self.data.clear()

    def write(self, data: bytes, /) -> None:
        self.data += data


class _Fetch:
    """One run. Call ``plan``, then ``perform`` unless checking, then ``result``."""

    def __init__(
        self,
        home: FirmwareHome,
        sources: collections.abc.Sequence[Source],
        page: ReleasePage,
        pool: concurrent.futures.Executor,
    ) -> None:
        self._home = home
        self._sources = {source.type: source for source in sources}
        self._page = page
        self._pool = pool
        self._lock: Lock = home.lock()
        self._disk = home.digests({path for locked in self._lock.values() for path in locked.files})
        self._plans: dict[str, Plan] = {}
        self._placed: dict[str, LockedType] = {}
        self._errors: dict[str, FleetError] = {}
        self._warnings: list[str] = []

    def plan(self) -> None:
        """Ask for the releases that matter, and decide what each means."""
        asking = [
            source for source in self._sources.values() if not is_whole(source, self._lock.get(source.type), self._disk)
        ]
        keys = sorted({(source.repository, source.version) for source in asking}, key=str)
        answers = dict(zip(keys, self._pool.map(self._ask, keys), strict=True))
        for source in asking:
            answer = answers[source.repository, source.version]
            if isinstance(answer, FleetError):
                self._errors[source.type] = answer
            elif answer is not None:
                self._try(source.type, functools.partial(self._decide, source, answer))

    def perform(self) -> None:
        """Download what is needed, put whole types in their place, and record them."""
        needed = [(name, path) for name, plan in self._plans.items() for path in plan.needed]
        if needed:
            with self._home.staging() as staging:
                staged = list(self._pool.map(lambda item: self._download(staging, *item), needed))
                self._place_all(staging, {item: sha256 for item, sha256 in zip(needed, staged, strict=True) if sha256})
        else:
            self._place_all(None, {})
        self._home.write_lock({**self._lock, **self._placed})

    def result(self) -> Fetched:
        """What was done; without ``perform``, what would be."""
        rows = [self._row(source) for source in self._sources.values()]
        before = {name: _shown(locked, self._disk) for name, locked in self._lock.items() if name in self._sources}
        after = {**before, **{name: self._after(name) for name in self._plans if name not in self._errors}}
        return Fetched(
            changed=any(row["status"] == "updated" for row in rows),
            rows=rows,
            errors=self._errors,
            before=before,
            after=after,
            warnings=self._warnings,
        )

    def _ask(self, key: Key) -> Release | FleetError | None:
        repository, tag = key
        try:
            return self._page.newest(repository) if tag is None else self._page.tagged(repository, tag)
        except FleetError as error:
            return error

    def _try(self, module_type: str, act: collections.abc.Callable[[], None]) -> None:
        """Let what fails be this type's own failure."""
        try:
            act()
        except FleetError as error:
            self._errors.setdefault(module_type, error)

    def _decide(self, source: Source, release: Release) -> None:
        self._disk |= self._home.digests(source.wanted(release.tag))
        self._plans[source.type] = make_plan(
            source,
            release,
            self._lock.get(source.type),
            self._disk,
            lambda asset: self._page.url_of(source.repository, release.tag, asset),
        )

    def _download(self, staging: Staging, module_type: str, path: str) -> str:
        """The SHA-256 of the image that was put into ``staging``; empty when it was not."""
        digests: list[str] = []
        self._try(module_type, lambda: digests.append(self._fetch_one(staging, self._plans[module_type], path)))
        return digests[0] if digests else ""

    def _fetch_one(self, staging: Staging, plan: Plan, path: str) -> str:
        wanted, source = plan.files[path], plan.source
        subject = f"file {wanted.asset.name} of {source.repository} {plan.release.tag}"
        buffer = _Buffer()
        self._page.download(source.repository, plan.release, wanted.asset, buffer)
        sha256 = hashlib.sha256(buffer.data).hexdigest()
        if wanted.sha256 not in (None, sha256):
            raise self._mismatch(plan, path, subject, sha256)
        data = bytes(buffer.data)
        image = parse_image(data, subject)
        check_chip(image, source.target, subject)
        self._warn_of_version(subject, plan.release.tag, image)
        staging.put(path, data)
        return sha256

    def _mismatch(self, plan: Plan, path: str, subject: str, seen: str) -> RefusedError:
        wanted = plan.files[path]
        if wanted.asset.sha256 is None:
            return exchanged(subject.removeprefix("file "), str(wanted.sha256), seen)
        return RefusedError(
            "download_mismatch",
            f"Downloaded the {subject}, which has the SHA-256 {seen[:16]}…, and the release page announces"
            f" {str(wanted.sha256)[:16]}…; nothing was taken of it: run it again, or check the mirror and the proxy.",
            expected=wanted.sha256,
            seen=seen,
        )

    def _warn_of_version(self, subject: str, tag: str, image: Image) -> None:
        released, built = parse_version(tag), parse_version(image.version)
        if released and built and released != built:
            self._warnings.append(
                f"The {subject} says that it is version {image.version}; its modules will report that."
            )

    def _place_all(self, staging: Staging | None, staged: dict[tuple[str, str], str]) -> None:
        for name, plan in self._plans.items():
            fresh = {path: staged[name, path] for path in plan.needed if (name, path) in staged}
            if name not in self._errors:
                self._try(name, functools.partial(self._place, staging, plan, fresh))

    def _place(self, staging: Staging | None, plan: Plan, fresh: dict[str, str]) -> None:
        digests = {path: fresh.get(path) or str(self._disk[path]) for path in plan.files}
        if staging is not None and fresh:
            self._judge_together(staging, plan, fresh)
            for path in fresh:
                staging.place(path)
        for path in plan.removed:
            self._home.remove(path)
        self._placed[plan.source.type] = record(plan, digests)

    def _judge_together(self, staging: Staging, plan: Plan, fresh: dict[str, str]) -> None:
        """Those that came and those that were there are for one chip."""
        images = []
        for path in plan.files:
            data = staging.read(path) if path in fresh else read_firmware(self._home.root / path)
            images.append((path, plan.source.type, parse_image(data, path)))
        check_one_chip(images)

    def _row(self, source: Source) -> Row:
        name, plan, locked = source.type, self._plans.get(source.type), self._lock.get(source.type)
        row: Row = {"type": name, "repository": source.repository, "from_version": locked.version if locked else None}
        error = self._errors.get(name)
        if error is not None:
            return {**row, "status": "failed", "version": row["from_version"], "code": error.code, "error": str(error)}
        if plan is None and not is_whole(source, locked, self._disk):
            return {**row, "status": "no_release", "version": None}
        after = self._after(name)
        changed = plan is not None and self._changes(plan)
        done = {"downloaded": list(plan.needed), "removed": list(plan.removed)} if plan and changed else {}
        return {**row, "status": "updated" if changed else "up_to_date", **after, **done}

    def _changes(self, plan: Plan) -> bool:
        """Whether files or the record of them differ from what was there."""
        name = plan.source.type
        known = {path: self._disk.get(path) or "" for path in plan.files}
        return bool(plan.needed or plan.removed) or record(plan, known) != self._lock.get(name)

    def _after(self, name: str) -> Row:
        """Version and digests, once everything is there."""
        placed, plan = self._placed.get(name), self._plans.get(name)
        if placed is not None:
            return _shown(placed, {path: file.sha256 for path, file in placed.files.items()})
        if plan is None:
            return _shown(self._lock[name], self._disk)
        files = {path: wanted.sha256 or UNKNOWN for path, wanted in plan.files.items()}
        return {"version": plan.release.tag, "files": files}


def _shown(locked: LockedType, disk: collections.abc.Mapping[str, str | None]) -> Row:
    return {"version": locked.version, "files": {path: disk.get(path) for path in locked.files}}
