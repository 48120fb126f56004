"""Docker on the Pi, asked through its own command."""

from __future__ import annotations

import collections.abc
import json
import re
import subprocess
import typing as t

from ..errors import InputError, LinkError
from ..text import printable

TIMEOUT: t.Final = 10.0  # s; the engine answers in milliseconds, or a Pi that is loading images in some seconds
_NAME: t.Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", re.ASCII)  # Docker's own rule; no option can pass for a name
_HOST_NETWORK: t.Final = "host"
_LOOPBACK: t.Final = "127.0.0.1"

RunCommand = collections.abc.Callable[[list[str]], "subprocess.CompletedProcess[str]"]


def run_command(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, at most ``TIMEOUT`` seconds; its exit status is the caller's to judge."""
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TIMEOUT,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def answer_of(command: list[str], run: RunCommand = run_command) -> str | None:
    """What a program of this host prints; None where it is not there, fails or hangs."""
    try:
        done = run(command)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def container_address(name: str, run: RunCommand = run_command) -> str:
    """The address under which this host reaches the running container ``name``, on the first network by name.

    A container on the host's own network is reached by the loopback address.

    :raises InputError: invalid_option when no container can have that name
    :raises LinkError: container_unknown when it is not there, does not run, or Docker cannot be asked
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            "invalid_option",
            f"The container {printable(name)!r} cannot be asked for: no container can have that name; "
            "give a name that `docker ps` shows.",
        )
    networks = _networks(name, _inspect(name, run))
    if _HOST_NETWORK in networks:
        return _LOOPBACK
    addresses = (_address(networks[network]) for network in sorted(networks))
    address = next(filter(None, addresses), None)
    if address is None:
        raise _unknown(name, "it has no address, as one that does not run")
    return address


def _inspect(name: str, run: RunCommand) -> str:
    command = ["docker", "inspect", "--type", "container", "--format", "{{json .NetworkSettings.Networks}}", name]
    try:
        done = run(command)
    except subprocess.TimeoutExpired:
        raise _unknown(name, f"Docker did not answer within {TIMEOUT:g} s") from None
    except OSError as error:
        raise _unknown(name, f"`docker` cannot be run ({error.strerror})") from None
    if done.returncode != 0:
        raise _unknown(name, f"Docker says {printable(done.stderr or done.stdout)!r}")
    return done.stdout


def _networks(name: str, answer: str) -> dict[str, t.Any]:
    try:
        networks = json.loads(answer)
    except ValueError:
        networks = None
    if not isinstance(networks, dict):
        raise _unknown(name, f"Docker answered {printable(answer)!r} and not its networks")
    return networks


def _address(network: object) -> str | None:
    """The IPv4 address of a container on one network, else its IPv6 address."""
    if not isinstance(network, dict):
        return None
    found = network.get("IPAddress") or network.get("GlobalIPv6Address")
    return found if isinstance(found, str) else None


def _unknown(name: str, seen: str) -> LinkError:
    return LinkError(
        "container_unknown",
        f"The address of the container {name} cannot be found: {seen}; "
        "run `docker ps` on the Pi and give the name that it shows as container.",
        container=name,
    )
