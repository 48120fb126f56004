"""The detached run: started by one short call, followed by others, alive without any of them.

``start`` writes the request, puts the program where it outlives the call, and starts it as a transient unit of systemd
(``trailcurrent-rollout``), or without systemd as a process of its own session. The same request joins the run under
way; another one is refused and told who holds the lock (DESIGN.md, Running on the Pi).

    python -m …rollout.process run <run folder>
    python -m …rollout.process follow <state_dir> <run> <offset> <wait>

``follow`` prints what happened since an offset of the journal as one line of JSON. It is a command of some hundred
bytes, where another call of the module would send the whole module again: an RV's link may have one bar and a price.
"""

from __future__ import annotations

import asyncio
import collections.abc
import hashlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import typing as t
import zipfile

from ..errors import FleetError, InputError, LinkError
from ..journal import Json, Lock, RunFolder, default_state_dir, exclusive, locked, write_atomically
from ..text import printable
from .images import image_path
from .model import read_modules
from .session import Settings, roll_out

UNIT: t.Final = "trailcurrent-rollout"
START_TIMEOUT: t.Final = 30.0  # s; a Pi Zero needs 5 s to start Python
POLL: t.Final = 0.1  # s between two looks at the journal
LOG_TAIL: t.Final = 500  # bytes of the process's own log in an error
SECRETS: t.Final = frozenset({"mqtt_password", "password"})


def state_dir_of(options: collections.abc.Mapping[str, t.Any]) -> pathlib.Path:
    """The state directory that the options name, or this host's own."""
    return pathlib.Path(options["state_dir"]).absolute() if options.get("state_dir") else default_state_dir()


def request_digest(options: collections.abc.Mapping[str, t.Any]) -> str:
    """What makes two requests the same: modules, the images' content, and options; never a secret."""
    modules = read_modules(options["modules"])
    folder = pathlib.Path(options["firmware_dir"])
    images = {}
    for module in modules:
        try:
            path = image_path(folder, module)
            images[module.name.key] = hashlib.sha256(path.read_bytes()).hexdigest() if path else None
        except (FleetError, OSError) as fault:
            images[module.name.key] = type(fault).__name__
    text = json.dumps([_without_secrets(options), images], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _without_secrets(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_secrets(part) for key, part in value.items() if key not in SECRETS}
    return [_without_secrets(part) for part in value] if isinstance(value, list) else value


def start(options: collections.abc.Mapping[str, t.Any]) -> Json:
    """Start the rollout, or join the same one under way.

    :returns: ``run`` (its name), ``joined``, and what ``follow`` needs (``python``, ``program``, ``package``,
        ``state_dir``)
    :raises InputError: ``locked``; whatever is wrong with the options
    :raises LinkError: ``state_unwritable``, ``not_started``
    """
    Settings.from_options(options)  # bad options are this call's error, not a detached process's
    with exclusive(state_dir_of(options) / "start.lock", START_TIMEOUT):
        return _start(options, state_dir_of(options), request_digest(options))


def _start(options: collections.abc.Mapping[str, t.Any], state_dir: pathlib.Path, digest: str) -> Json:
    holder = Lock(state_dir).holder()
    if holder is not None and holder.request != digest:
        raise locked(holder)
    program = _keep_program(state_dir, alone=holder is None)
    way_back = {"program": program, "python": sys.executable, "package": __package__, "state_dir": str(state_dir)}
    if holder is not None:
        return {"run": holder.run, "joined": True, **way_back}
    name = _new_name()
    folder = RunFolder(state_dir, name)
    folder.create()
    request = {"options": dict(options), "digest": digest, "run": name, "state_dir": str(state_dir)}
    request_file = folder.path / "request.json"
    write_atomically(request_file, json.dumps(request).encode(), 0o600)
    try:
        _launch(folder, program)
        _await_start(folder, state_dir)
    finally:
        request_file.unlink(missing_ok=True)  # it may hold passwords; who was started has read it
    return {"run": name, "joined": False, **way_back}


def _keep_program(state_dir: pathlib.Path, *, alone: bool) -> str:
    """A place for PYTHONPATH that outlives this call: Ansible removes the archive that this code came in.

    :param alone: no run is under way, so that older programs can go
    """
    here = pathlib.Path(__file__)
    archive = next((parent for parent in here.parents if parent.is_file()), None)
    if archive is None:
        return str(next(parent for parent in here.parents if parent.name == "ansible_collections").parent)
    content = _own_part(archive)
    path = state_dir / "code" / f"{hashlib.sha256(content).hexdigest()}.zip"
    if not path.exists():
        for old in path.parent.glob("*.zip") if alone else ():
            old.unlink(missing_ok=True)
        write_atomically(path, content)
    return str(path)


def _own_part(archive: pathlib.Path) -> bytes:
    """This collection's files alone: Ansible's archive also holds a ``sitecustomize`` of its own."""
    out = io.BytesIO()
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as part:
        for name in sorted(set(whole.namelist())):
            if name.startswith("ansible_collections/"):
                part.writestr(zipfile.ZipInfo(name), whole.read(name), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _launch(folder: RunFolder, program: str) -> None:
    command = [sys.executable, "-m", f"{__package__}.process", "run", str(folder.path)]
    if os.geteuid() == 0 and pathlib.Path("/run/systemd/system").is_dir():
        _launch_unit(command, program, folder)
        return
    log = os.open(folder.path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": program},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(log)


def _launch_unit(command: list[str], program: str, folder: RunFolder) -> None:
    unit = ["systemd-run", f"--unit={UNIT}", "--collect", "--quiet", "--service-type=exec", "--property=KillMode=mixed"]
    variables = {"PYTHONPATH": program, "HOME": str(pathlib.Path.home()), "SUDO_USER": os.environ.get("SUDO_USER")}
    environment = [f"--setenv={name}={value}" for name, value in variables.items() if value]
    log = [f"--property={name}=append:{folder.path / 'log'}" for name in ("StandardOutput", "StandardError")]
    try:
        done = subprocess.run(
            [*unit, *environment, *log, *command], capture_output=True, check=False, timeout=START_TIMEOUT
        )
        seen = printable(done.stderr)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_started(str(error)) from error
    if done.returncode != 0:
        raise _not_started(seen)


def _not_started(seen: str) -> LinkError:
    return LinkError(
        "not_started", f"systemd did not start {UNIT}: {printable(seen)}; look at `systemctl status {UNIT}` on the Pi"
    )


def _await_start(folder: RunFolder, state_dir: pathlib.Path) -> None:
    end = time.monotonic() + START_TIMEOUT
    while time.monotonic() < end:
        holder = Lock(state_dir).holder()
        if folder.outcome() is not None or (holder is not None and holder.run == folder.name):
            return
        time.sleep(POLL)
    raise LinkError("not_started", f"the rollout {folder.name} did not start: {_log_tail(folder)}; run it again")


def follow(state_dir: pathlib.Path, run: str, offset: int, wait: float) -> Json:
    """What happened in ``run`` since byte ``offset`` of its journal; waits up to ``wait`` seconds for something.

    :returns: ``events``, ``offset``, ``progress``, and ``outcome`` when it has ended
    :raises LinkError: ``interrupted`` when the run died without an outcome
    """
    folder = RunFolder(state_dir, run)
    end = time.monotonic() + wait
    while True:
        holder = Lock(state_dir).holder()
        outcome = folder.outcome()  # after the lock: a run writes its outcome before it lets go
        events, offset_after = folder.events(offset)
        if events or outcome is not None or time.monotonic() >= end:
            break
        if holder is None or holder.run != run:
            raise _interrupted(folder)
        time.sleep(POLL)
    return {"events": events, "offset": offset_after, "progress": folder.read_progress(), "outcome": outcome}


def _interrupted(folder: RunFolder) -> FleetError:
    return LinkError(
        "interrupted",
        f"the rollout {folder.name} ended before its time ({_log_tail(folder)}); run it again: it goes on where it was",
        run=folder.name,
    )


def _log_tail(folder: RunFolder) -> str:
    try:
        return printable((folder.path / "log").read_bytes()[-LOG_TAIL:]) or "its log is empty"
    except OSError:
        return f"its log is in `journalctl -u {UNIT}`"


def plan(options: collections.abc.Mapping[str, t.Any]) -> Json:
    """What a rollout would do; for check mode. Nothing is written, sent or woken."""
    settings = Settings.from_options(options)
    return asyncio.run(roll_out(settings, RunFolder(state_dir_of(options), "plan"), check=True))


def run_here(options: collections.abc.Mapping[str, t.Any]) -> Json:
    """Run the rollout in this process, under the lock.

    :raises FleetError: the run as a whole cannot be: ``locked``, the broker, the state directory
    """
    settings = Settings.from_options(options)
    state_dir = state_dir_of(options)
    folder = RunFolder(state_dir, _new_name())
    folder.create()
    with Lock(state_dir).held(what="rollout", run=folder.name, request=request_digest(options)):
        return asyncio.run(_until_stopped(settings, folder))


def _new_name() -> str:
    return f"rollout-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.getpid()}"


async def _until_stopped(settings: Settings, folder: RunFolder) -> Json:
    """SIGTERM ends the run between two bytes; what was begun stays recorded for the next one."""
    task = asyncio.ensure_future(roll_out(settings, folder, check=False))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise InputError("stopped", f"the rollout {folder.name} was stopped; run it again to go on") from None


def main(argv: collections.abc.Sequence[str]) -> int:
    """``run`` or ``follow``; the exit status."""
    if argv[0] == "follow":
        return _print_news(pathlib.Path(argv[1]), argv[2], int(argv[3]), float(argv[4]))
    return _run_request(pathlib.Path(argv[1]))


def _print_news(state_dir: pathlib.Path, run: str, offset: int, wait: float) -> int:
    try:
        news = follow(state_dir, run, offset, wait)
    except FleetError as error:
        news = _error_outcome(error)
    sys.stdout.write(json.dumps(news) + "\n")
    return 0


def _run_request(path: pathlib.Path) -> int:
    """The detached process: one request, one outcome."""
    request_file = path / "request.json"
    request = json.loads(request_file.read_bytes())
    request_file.unlink()  # it may hold passwords
    state_dir = pathlib.Path(request["state_dir"])
    folder = RunFolder(state_dir, request["run"])
    try:
        settings = Settings.from_options(request["options"])
        with Lock(state_dir).held(what="rollout", run=folder.name, request=request["digest"]):
            outcome = _finished(settings, folder)
    except FleetError as error:
        outcome = _error_outcome(error)
        folder.finish(outcome)
    return 1 if "error" in outcome else 0


def _finished(settings: Settings, folder: RunFolder) -> Json:
    """The outcome, on disk before the lock goes: a follower that finds neither calls the run interrupted."""
    try:
        outcome = asyncio.run(_until_stopped(settings, folder))
    except FleetError as error:
        outcome = _error_outcome(error)
    folder.finish(outcome)
    return outcome


def _error_outcome(error: FleetError) -> Json:
    return {"error": {"msg": str(error), "code": error.code, "details": error.details}}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
