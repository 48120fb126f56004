"""What the RV's computer says of itself: services, containers, disk, certificates, clock. Nothing is changed."""

from __future__ import annotations

import calendar
import collections.abc
import json
import os
import pathlib
import time
import typing as t

from . import clock
from .docker import RunCommand, answer_of, run_command

DAY: t.Final = 86_400  # s
NOT_FOUND: t.Final = "not-found"  # LoadState of a unit that is not there (systemd's D-Bus interface)
PROJECT: t.Final = "trailcurrent"  # of Compose (PROTOCOLS.md, Docker services of an RV in the field)
_END: t.Final = "notAfter="

Json = dict[str, t.Any]


def services(names: collections.abc.Sequence[str], run: RunCommand = run_command) -> dict[str, str]:
    """Each unit's state by its name: ``active``, ``failed``, ``inactive``, ... or ``absent``."""
    if not names:
        return {}
    answer = answer_of(["systemctl", "show", "--property=LoadState,ActiveState", *names], run)
    if answer is None:
        return dict.fromkeys(names, "unknown")
    shown = [_properties(block) for block in answer.strip().split("\n\n")]
    return {name: _state(unit) for name, unit in zip(names, shown, strict=False)}


def _properties(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _state(unit: collections.abc.Mapping[str, str]) -> str:
    return "absent" if unit.get("LoadState") == NOT_FOUND else unit.get("ActiveState", "unknown")


def containers(run: RunCommand = run_command) -> dict[str, str]:
    """The state of each of the RV's containers by its service: ``active``, or Docker's word; none without an engine."""
    command = [
        "docker",
        "ps",
        "--all",
        "--filter",
        f"label=com.docker.compose.project={PROJECT}",
        "--format",
        "{{json .}}",
    ]
    found = {}
    for line in (answer_of(command, run) or "").splitlines():
        container = _object(line)
        labels = dict(pair.partition("=")[::2] for pair in str(container.get("Labels", "")).split(","))
        service = labels.get("com.docker.compose.service")
        if service:
            found[service] = _health(container)
    return dict(sorted(found.items()))


def _object(line: str) -> Json:
    try:
        read = json.loads(line)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _health(container: Json) -> str:
    if "(unhealthy)" in str(container.get("Status", "")):
        return "unhealthy"
    state = str(container.get("State", "unknown"))
    return "active" if state == "running" else state


def disk_free(path: pathlib.Path) -> int | None:
    """Bytes that an ordinary user may still write below ``path``; None where it is not there."""
    try:
        room = os.statvfs(path)
    except OSError:
        return None
    return room.f_bavail * room.f_frsize


def days_left(certificate: pathlib.Path, now: float, run: RunCommand = run_command) -> int | None:
    """Whole days until a certificate expires, negative afterwards; None for one that is not there or cannot be read."""
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-enddate", "-dateopt", "iso_8601"]
    answer = (answer_of(command, run) or "").strip()
    try:
        end = calendar.timegm(time.strptime(answer.removeprefix(_END), "%Y-%m-%d %H:%M:%SZ"))
    except ValueError:
        return None
    return int((end - now) // DAY)


def clock_state(now: float) -> str:
    """``set`` by a time server, ``running`` on its own, or ``wrong``: before this collection was made."""
    if not clock.is_plausible(now):
        return "wrong"
    return "set" if clock.clock_is_synced() else "running"
