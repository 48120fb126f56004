"""What a Pi's CAN controller does: runs on the Pi, prints one JSON object.

Usage: ``python3 -c <this text> MODEL_FILE REBOOT_MARK``. The mark is a file in /run, so a restart removes it.

``state``    the controller's state in the kernel's words, "" when there is no interface; ``ERROR-PASSIVE`` is that of
             a bus without another node that is awake
``bus_off``  whether it is in bus-off, or was in it again while this looked
``fault``    the kernel's own words about a controller that does not answer as one
``old``      files of ifupdown that describe can0 as well
``unit``     whose can0.service is there: ``none``, ``ours`` or ``foreign``; ``unit_bitrate`` is what it sets, 0 when it
             names none
"""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
import time

NAME = "can0"
LOOK_AGAIN = 1.0  # s; with restart-ms 100 a controller on a shorted bus falls into bus-off some times meanwhile
TIMEOUT = 30  # s, for each command
FAULT = re.compile(
    r"mcp25\S* spi\d+\.\d+: .*(?:conf mode|Cannot initialize|Wrong wiring|Probe failed|failed to).*", re.I
)
UNIT = pathlib.Path("/etc/systemd/system/can0.service")
MARK = "# Written by trailcurrent.fleet's role can_interface."  # first line of the role's template
BITRATE = re.compile(r"^[^#;\n]*\bbitrate\s+(\d+)", re.MULTILINE)
OLD = re.compile(rf"^\s*(?:auto|allow-hotplug|iface)\s.*\b{NAME}\b", re.MULTILINE)


def said(*command: str) -> str:
    """What a command prints; "" when it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def text(path: pathlib.Path) -> str:
    """A file's text; "" when it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def link() -> dict[str, object]:
    """What the kernel knows of the interface; empty when there is none."""
    found = json.loads(said("ip", "-details", "-statistics", "-json", "link", "show", NAME) or "[]")
    if not found:
        return {}
    info = found[0].get("linkinfo", {})
    data = info.get("info_data", {})
    return {
        "up": "UP" in found[0].get("flags", []),
        "state": data.get("state", "UNKNOWN"),
        # The second is that of drivers that know a few rates only.
        "bitrate": data.get("bittiming", {}).get("bitrate", 0) or data.get("bittiming_bitrate", 0),
        "times_off": info.get("info_xstats", {}).get("bus_off", 0),
    }


def controller() -> dict[str, object]:
    """The interface's state, after a second look where it is up."""
    first = link()
    if not first.get("up"):
        return {**first, "bus_off": False}
    time.sleep(LOOK_AGAIN)
    second = link() or first
    off = "BUS-OFF" in (first["state"], second["state"]) or second["times_off"] != first["times_off"]
    return {**second, "bus_off": off}


def unit(path: pathlib.Path) -> dict[str, object]:
    """Whose service of the bus is there, and its bit rate."""
    content = text(path)
    bitrate = BITRATE.search(content)
    kind = "ours" if content.startswith(MARK) else "foreign" if content else "none"
    return {"unit": kind, "unit_bitrate": int(bitrate[1]) if bitrate else 0}


def fault() -> str:
    """The last of the kernel's complaints about the controller since the boot."""
    found = FAULT.findall(said("journalctl", "--dmesg", "--boot", "--no-pager", "--output=cat")) or FAULT.findall(
        said("dmesg")
    )
    return found[-1].strip() if found else ""


def probe(model: str, mark: str) -> dict[str, object]:
    """All that the role needs to know, in one round trip."""
    interfaces = pathlib.Path("/etc/network")
    files = [interfaces / "interfaces", *sorted(interfaces.glob("interfaces.d/*"))]
    interface = pathlib.Path("/sys/class/net", NAME).exists()
    return {
        "model": text(pathlib.Path(model)).strip("\0\n "),
        "interface": interface,
        "fault": "" if interface else fault(),
        "reboot_needed": pathlib.Path(mark).exists(),
        "old": [str(path) for path in files if OLD.search(text(path))],
        **unit(UNIT),
        **controller(),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(sys.argv[1], sys.argv[2])))
