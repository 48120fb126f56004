"""What keeps a host from becoming the computer of an RV, as a pure decision on what was seen."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ..text import printable

SYSTEMS: t.Final = {"debian": "Debian", "raspbian": "Raspberry Pi OS"}  # ID of os-release(5)
RELEASES: t.Final = ("12", "13")
MACHINES: t.Final = ("aarch64", "x86_64")
OLDEST_PYTHON: t.Final = (3, 11)
MIB: t.Final = 1024 * 1024  # bytes
FREE_DISK: t.Final = 1024 * MIB  # Docker and what else is installed take 700 MiB, and apt its downloads
LABEL: t.Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)  # RFC 1123, 2.1
USER: t.Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)  # useradd(8), CAVEATS


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the inventory asks for."""

    hostname: str
    user: str


@dataclasses.dataclass(frozen=True)
class Host:
    """What a host says of itself.

    :param system: ``ID`` of os-release(5)
    :param release: ``VERSION_ID`` of os-release(5)
    :param label: its name for people
    :param machine: as ``uname -m`` says it
    :param bits: of its programs; a 64-bit kernel may run 32-bit ones
    :param init: the name of process 1
    :param free: bytes that are free below /, to an ordinary user
    """

    system: str
    release: str
    label: str
    machine: str
    bits: int
    python: tuple[int, int]
    init: str
    is_root: bool
    is_set_up: bool
    free: int


@dataclasses.dataclass(frozen=True)
class Problem:
    """One reason to go no further."""

    code: str
    sentence: str


def problems(name: str, wanted: Wanted, host: Host) -> list[Problem]:
    """All that is wrong, the inventory's part first; empty when nothing is.

    :param name: what the inventory calls the host
    """
    return [*_of_inventory(name, wanted), *_of_system(name, host), *_of_rights(name, host), *_of_disk(name, host)]


def _of_inventory(name: str, wanted: Wanted) -> list[Problem]:
    found = []
    if not LABEL.fullmatch(wanted.hostname):
        found.append(
            Problem(
                "inventory_invalid",
                f"`fleet_hostname` of {name} is {printable(wanted.hostname)!r}, which is no host name; "
                "give one of 1 to 63 small letters, digits and hyphens, without `.local`, such as trailcurrent01.",
            )
        )
    if not USER.fullmatch(wanted.user):
        found.append(
            Problem(
                "inventory_invalid",
                f"`fleet_user` of {name} is {printable(wanted.user)!r}, which is no user name; give one of "
                "at most 32 small letters, digits, hyphens and underscores.",
            )
        )
    return found


def _of_system(name: str, host: Host) -> list[Problem]:
    seen = f"{name} runs {printable(host.label)} ({host.bits}-bit, {printable(host.machine)})"
    advice = "write 64-bit Raspberry Pi OS Lite of Debian 12 or 13 to its SD card."
    if host.bits != 64 or host.machine not in MACHINES:
        return [Problem("os_unsupported", f"{seen}, and an RV needs a 64-bit system; {advice}")]
    if host.system not in SYSTEMS or host.release not in RELEASES:
        return [Problem("os_unsupported", f"{seen}, which this collection does not know; {advice}")]
    if host.python < OLDEST_PYTHON or host.init != "systemd":
        python = ".".join(map(str, host.python))
        return [
            Problem("os_unsupported", f"{seen} with Python {python} and {printable(host.init)} as process 1; {advice}")
        ]
    return []


def _of_rights(name: str, host: Host) -> list[Problem]:
    if host.is_root:
        return []
    return [
        Problem(
            "sudo_missing",
            f"The tasks on {name} do not run as root; set `ansible_become: true`, and `ansible_become_password` where "
            "sudo asks for one.",
        )
    ]


def _of_disk(name: str, host: Host) -> list[Problem]:
    if host.is_set_up or host.free >= FREE_DISK:
        return []
    return [
        Problem(
            "disk_full",
            f"{name} has {host.free // MIB} MiB free below /, and set-up needs {FREE_DISK // MIB} MiB; free some, or "
            "have Raspberry Pi OS grow its file system (`sudo raspi-config --expand-rootfs`).",
        )
    ]
