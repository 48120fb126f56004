"""What the CAN bridge tells of itself on ``can/bridge/status`` (PROTOCOLS.md, CAN over MQTT).

A bridge of the old kind tells nothing: then nothing is known to be broken.
"""

from __future__ import annotations

import json
import typing as t

from ..errors import LinkError
from ..text import clock, printable

ONLINE: t.Final = "online"
DEAD_BUS: t.Final = frozenset({"bus_off", "down"})

Json = dict[str, t.Any]


def parse_status(payload: bytes) -> Json | None:
    """The status in a message; None where it holds none (a hostile one, or the empty one that takes it back)."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def check_status(status: Json | None) -> None:
    """Refuse a bridge that says it cannot bring frames to the bus.

    :raises LinkError: ``bridge_down``, ``bus_off``
    """
    if status is None:
        return
    since = clock(status.get("since"))
    if status.get("state") != ONLINE:
        raise LinkError(
            "bridge_down",
            f"the CAN bridge reports `{printable(str(status.get('state')))}` since {since};"
            " start it on the Pi: systemctl status cantomqtt",
        )
    bus_state = printable(str(status.get("bus_state")))
    if bus_state in DEAD_BUS:
        raise LinkError(
            "bus_off",
            f"the bridge reports the CAN bus as `{bus_state}` since {since}; check its"
            " wiring and termination, then on the Pi: ip -details link show can0",
        )
