"""The whole act: what is wanted, whether it was sent, send it, record it."""

from __future__ import annotations

import collections.abc
import pathlib
import typing as t

from ..errors import InputError
from ..formats.wifi_credentials import encode
from ..journal import Lock, default_state_dir, exclusive, locked
from ..links.mqtt_session import mqtt_settings
from .record import Reason, Sent, read_record, why_send, write_record
from .sender import send_whole
from .source import Options, Wanted, read_wanted

ATTEMPTS: t.Final = range(1, 11)  # the option's range; each takes some seconds more
DEFAULT_ATTEMPTS: t.Final = 3
LOCK_PATIENCE: t.Final = 120.0  # s; somebody else's sequence, sent thrice over a broker that restarts
LOCK_FILE: t.Final = "wifi_credentials.lock"

Result = dict[str, t.Any]
Warn = collections.abc.Callable[[str], None]


def provision(options: Options, *, check: bool, warn: Warn) -> Result:
    """Send the credentials to the bus where the record says that somebody lacks them, or say that it would.

    :param options: the module's
    :raises FleetError: what ``read_wanted`` and ``send_whole`` raise; ``invalid_option``, ``locked``,
        ``state_unwritable``
    """
    attempts = options["attempts"]
    if attempts not in ATTEMPTS:
        raise InputError(
            "invalid_option",
            f"the option attempts is {attempts}; give a number from {ATTEMPTS.start} to {ATTEMPTS.stop - 1}",
        )
    settings = mqtt_settings(options)
    wanted = read_wanted(options)
    for entry in wanted.invalid:
        warn(entry["reason"])
    state_dir = pathlib.Path(options["state_dir"]).expanduser() if options.get("state_dir") else default_state_dir()
    frames = encode(wanted.credentials)
    if check:
        return _result(wanted, read_record(state_dir), len(frames), force=options["force"])
    with exclusive(state_dir / LOCK_FILE, LOCK_PATIENCE):
        result = _result(wanted, read_record(state_dir), len(frames), force=options["force"])
        if result["changed"]:
            _refuse_during_rollout(state_dir)
            result["attempts"] = send_whole(frames, settings, attempts)
        _record(state_dir, wanted, sent=result["changed"])
    return result


def _refuse_during_rollout(state_dir: pathlib.Path) -> None:
    """A board that is being updated leaves the bus, and would miss the frames (PROTOCOLS.md, OTA trigger)."""
    holder = Lock(state_dir).holder()
    if holder is not None and holder.what == "rollout":
        raise locked(holder)


def _record(state_dir: pathlib.Path, wanted: Wanted, *, sent: bool) -> None:
    """Write down what was sent, and forget modules that are gone: one that comes back may be another board."""
    hostnames = _keys(wanted)
    if sent:
        write_record(state_dir, Sent.of(wanted.credentials, hostnames))
        return
    known = read_record(state_dir)
    if known is not None and known.hostnames != hostnames:
        write_record(state_dir, Sent(known.salt, known.digest, hostnames))


def _result(wanted: Wanted, sent: Sent | None, frames: int, *, force: bool) -> Result:
    hostnames = _keys(wanted)
    reason = why_send(sent, wanted.credentials, hostnames, force=force)
    return {
        "changed": bool(reason),
        "reason": reason,
        "source": wanted.source,
        "frames": frames if reason else 0,
        "attempts": 0,
        "hostnames": [name.text for name in wanted.names],
        "diff": _diff(reason, sent, hostnames),
    }


def _diff(reason: Reason, sent: Sent | None, hostnames: frozenset[str]) -> Result:
    """Which modules have been sent the credentials, before and after; the credentials themselves are never shown."""
    knew = sent.hostnames if sent is not None and reason in {"", "forced", "modules"} else frozenset[str]()
    after = {"sent_to": sorted(hostnames)}
    return {"before": {"sent_to": sorted(knew & hostnames)}, "after": after}


def _keys(wanted: Wanted) -> frozenset[str]:
    return frozenset(name.key for name in wanted.names)
