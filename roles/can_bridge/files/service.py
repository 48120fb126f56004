"""The bridge's service on the Pi: what is there, and the proof that it runs; prints one JSON object.

Usage: ``python3 -c <this text> look|prove SETTINGS`` as root, with the role's settings as JSON. ``look`` changes
nothing. ``prove`` notes with which unit, code, Python and settings the service was found at work; ``applied`` tells
later whether they are the same. The note is root's alone: it has a digest of secrets.
"""

from __future__ import annotations

import collections.abc
import hashlib
import json
import os
import pathlib
import pwd
import subprocess
import sys
import time

MARK = "# Written by trailcurrent.fleet."  # the first line of our unit
NOTED = ("unit", "drop_ins", "env_file", "ca_cert")
STATUS_AGE = 30.0  # s; three times the bridge's STATUS_INTERVAL: an older status is that of a dead bridge
SETTLED = 5.0  # s that it must have run where no broker can tell; what ends at once has ended by then
PAUSE = 0.5  # s between two looks
COMMAND_TIMEOUT = 30  # s
LAST_LINES = 12  # of the journal
PROPERTIES = (
    "ActiveState",
    "SubState",
    "NRestarts",
    "InvocationID",
    "ActiveEnterTimestampMonotonic",
    "NeedDaemonReload",
)

Json = dict[str, object]


def run(*command: str, **options: object) -> str:
    """What a program prints; empty where it is not there, or hangs."""
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            **options,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def shown(service: str) -> dict[str, str]:
    """What systemd says of the service."""
    said = run("systemctl", "show", f"--property={','.join(PROPERTIES)}", service)
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def digest(folder: pathlib.Path) -> str:
    """Of the code in a folder, as files/pack_code.py counts it; what Python has compiled is no part of it."""
    total = hashlib.sha256()
    for path in sorted((path for path in folder.rglob("*") if path.is_file()), key=str):
        if "__pycache__" not in path.parts:
            name = path.relative_to(folder).as_posix()
            total.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def content(path: pathlib.Path) -> bytes:
    """Of a file, or of all files in a folder; empty where there is none."""
    paths = sorted(path.glob("*")) if path.is_dir() else [path]
    return b"\0".join(path.read_bytes() for path in paths if path.is_file())


def applied(settings: dict[str, str]) -> str:
    """A digest of all that the service reads when it starts."""
    total = hashlib.sha256()
    for part in [content(pathlib.Path(settings[name])) for name in NOTED]:
        total.update(hashlib.sha256(part).digest())
    # The Python's folder, for its own link leads to the system's.
    for place in (pathlib.Path(settings["python"]).parent, pathlib.Path(settings["link"])):
        total.update(os.fsencode(place.resolve()) + b"\0")
    return total.hexdigest()


def kind(path: pathlib.Path) -> str:
    """``none``, ``link`` or ``other``."""
    if path.is_symlink():
        return "link"
    return "other" if path.exists() else "none"


def unit_kind(path: pathlib.Path) -> str:
    """``none``, ``ours`` or ``foreign``."""
    if kind(path) == "none":
        return "none"
    return "ours" if content(path).startswith(MARK.encode()) else "foreign"


def unsafe(settings: dict[str, str]) -> str:
    """Which path of the user's root must not write to or own, and why, as a sentence; empty where all are in order."""
    code, link = pathlib.Path(settings["code"]), pathlib.Path(settings["link"])
    if link.is_symlink() and pathlib.Path(os.path.normpath(link.parent / link.readlink())).parent != code:
        return f"{link} leads to {link.readlink()}, which is not a folder in {code}; remove that link"
    own = code / settings["digest"]
    for path in (pathlib.Path(settings["home"]), code.parent, code, own, *sorted(own.rglob("*"))):
        if path.is_symlink():
            return f"{path} is a link that leads to {path.readlink()}; put the folder or file itself in its place"
        if os.path.lexists(path) and path.lstat().st_uid not in {0, *user_ids(settings["user"])}:
            return f"{path} belongs to neither root nor {settings['user']}; find out why, and give it back"
    return ""


def user_ids(name: str) -> list[int]:
    """The number of a user; none where there is no such user yet."""
    try:
        return [pwd.getpwnam(name).pw_uid]
    except KeyError:
        return []


def look(settings: dict[str, str]) -> Json:
    """All that the role needs to know, in one round trip."""
    folder, link = pathlib.Path(settings["code"]), pathlib.Path(settings["link"])
    note = pathlib.Path(settings["note"])
    used = link.resolve().name if link.is_symlink() else ""
    return {
        "code_whole": digest(folder / settings["digest"]) == settings["digest"],
        "codes": sorted(path.name for path in folder.glob("*") if path.is_dir()),
        "link": kind(link),
        "used": used,
        "unit": unit_kind(pathlib.Path(settings["unit"])),
        "python": os.access(settings["python"], os.X_OK),
        "user": bool(user_ids(settings["user"])),
        "unsafe": unsafe(settings),
        "applied": content(note).decode(errors="replace").strip() == applied(settings),
        "active": shown(settings["service"]).get("ActiveState", "unknown"),
    }


def ask(settings: dict[str, str]) -> Json:
    """What the broker says of the bridge, asked as the bridge's own user with its own settings."""
    link = settings["link"]
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": f"{link}:{link}/collections",
        "PYTHONDONTWRITEBYTECODE": "1",
        "BRIDGE_ENV_FILE": settings["env_file"],
    }
    user = {"user": settings["user"], "group": settings["user"], "extra_groups": [], "cwd": "/"}
    said = run(settings["python"], "-m", "services.can_bridge.ask", env=environment, **user)
    try:
        return dict(json.loads(said))
    except ValueError:
        return {"code": "unknown", "error": "its broker could not be asked"}


def ended(unit: collections.abc.Mapping[str, str], restarts: str) -> bool:
    """Whether the service has ended, be it that systemd starts it again."""
    return unit.get("ActiveState") != "active" or unit.get("NRestarts") != restarts


def is_fresh(status: object, age: float) -> bool:
    """Whether a bridge that has run for so long has sent this itself, and not the one before."""
    if not isinstance(status, dict) or not isinstance(status.get("at"), int | float):
        return False
    return status.get("state") != "offline" and abs(time.time() - status["at"]) <= min(age + 1, STATUS_AGE)


def journal(unit: collections.abc.Mapping[str, str]) -> list[str]:
    """Its last lines, and what systemd said of it."""
    run_id = unit.get("InvocationID", "")
    match = [f"_SYSTEMD_INVOCATION_ID={run_id}", "+", f"INVOCATION_ID={run_id}"]
    said = run("journalctl", "--quiet", "--no-pager", "--output=cat", f"--lines={LAST_LINES}", *match)
    return [line for line in said.splitlines() if line.strip()]


def prove(settings: dict[str, str]) -> Json:
    """Watch it until its own status, or the lack of a broker, is known; ``state`` is couples, waits or failed."""
    service, patience = settings["service"], float(settings["timeout"])
    deadline, restarts, answer = time.monotonic() + patience, shown(service).get("NRestarts", ""), {}
    while True:
        unit = shown(service)
        if ended(unit, restarts):
            return {"state": "failed", "seen": f"it is {unit.get('SubState', 'not there')}", "journal": journal(unit)}
        age = time.monotonic() - int(unit["ActiveEnterTimestampMonotonic"]) / 1e6
        answer = ask(settings)
        if is_fresh(answer.get("status"), age):
            return {"state": "couples", "status": answer["status"]}
        if str(answer.get("code")).startswith("broker_") and age >= SETTLED:
            return {"state": "waits", "code": answer["code"], "error": answer["error"]}
        if time.monotonic() >= deadline:
            seen = answer.get("error") or f"it started, and the broker has no new status of it after {patience:g} s"
            return {"state": "failed", "seen": seen, "journal": journal(unit)}
        time.sleep(PAUSE)


def note(settings: dict[str, str], digest_before: str) -> None:
    """Remember with what it was proven."""
    path = pathlib.Path(settings["note"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(f"{digest_before}\n", encoding="ascii")


def main() -> None:
    """Do what the command line says."""
    act, settings = sys.argv[1], json.loads(sys.argv[2])
    if act == "look":
        answer = look(settings)
    else:
        before = applied(settings)
        answer = prove(settings)
        if answer["state"] != "failed" and content(pathlib.Path(settings["note"])).decode().strip() != before:
            note(settings, before)
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
