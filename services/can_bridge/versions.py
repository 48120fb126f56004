"""Each module's last version report: kept on disk, and retained on ``can/bridge/versions``.

The broker forgets retained messages when it restarts (PROTOCOLS.md, Docker services), and most modules report only
when they boot: what the disk holds is the only memory of what they run.
"""

from __future__ import annotations

import json
import os
import pathlib
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.can_mqtt import VersionReport

FILE_NAME: t.Final = "versions.json"
MAX_MODULES: t.Final = 1024  # an RV has some dozens; a bus gone mad must not fill memory and broker
SAVE_AT_ONCE: t.Final = 1.0  # seconds after a new version, so that a burst of reports is one write
SAVE_LATER: t.Final = 600.0  # seconds after the same version reported again: flash wears out by writing
Document = dict[str, dict[str, t.Any]]


class Versions:
    """The last report of each module, by the canonical hostname; pure, ``now`` is epoch seconds.

    * a report with another version is to be saved soon, one that only renews ``at`` much later;
    * at most ``MAX_MODULES``: the one silent for longest gives way.
    """

    def __init__(self, document: Document | None = None) -> None:
        self._modules: Document = dict(document or {})
        self._save_at: float | None = None

    def note(self, report: VersionReport, now: float) -> None:
        """Take note of a report that came at ``now``."""
        version = ".".join(map(str, report.version))
        before = self._modules.get(report.name.key)
        self._modules[report.name.key] = {"version": version, "at": round(now, 3)}
        if len(self._modules) > MAX_MODULES:
            del self._modules[min(self._modules, key=lambda key: self._modules[key]["at"])]
        wait = SAVE_LATER if before is not None and before["version"] == version else SAVE_AT_ONCE
        due = now + wait
        self._save_at = due if self._save_at is None else min(self._save_at, due)

    def text(self) -> str:
        """The message and the file's content."""
        return json.dumps(self._modules, sort_keys=True)

    def unsaved(self) -> bool:
        """Whether the disk lacks something."""
        return self._save_at is not None

    def due(self, now: float) -> bool:
        """Whether it is time to save; a clock set back far does not postpone it."""
        return self._save_at is not None and not self._save_at - SAVE_LATER <= now < self._save_at

    def saved(self) -> None:
        """What ``text`` gave is on its way to the disk."""
        self._save_at = None

    def save_again(self, now: float) -> None:
        """What ``text`` gave did not reach the disk."""
        self._save_at = now + SAVE_LATER


def parse(text: str) -> Document:
    """What a file holds, what has another shape left out. :raises ValueError: where it is no JSON object"""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return {key: value for key, value in document.items() if _is_entry(value)}


def _is_entry(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("version"), str) and isinstance(value.get("at"), int | float)


def load(directory: pathlib.Path) -> Document:
    """What was saved in ``directory``, nothing when it was never. :raises OSError, ValueError: when it is unreadable"""
    try:
        return parse((directory / FILE_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def save(directory: pathlib.Path, text: str) -> None:
    """Replace the file by ``text`` so that a power cut leaves the old or the new one whole. :raises OSError:"""
    directory.mkdir(parents=True, exist_ok=True)
    new = directory / f"{FILE_NAME}.new"
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(directory / FILE_NAME)
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
