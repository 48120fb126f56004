"""The background process of `up`: it runs one RV until it is told to stop, and writes how its start went to a file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import typing as t

from .config import Config, ConfigError, default_config, load_config
from .control import ControlError, ControlServer, NotRunningError, ask

if t.TYPE_CHECKING:  # broker and database take a second to import, and `status` needs neither
    from .rv import Modules, VirtualRv

ROOT: t.Final = pathlib.Path(__file__).resolve().parent.parent
START_TIMEOUT: t.Final = 60.0
"""Seconds that `up` waits for everything to answer."""
STOP_TIMEOUT: t.Final = 15.0
"""Seconds that `down` waits for an orderly end."""
KILL_TIMEOUT: t.Final = 3.0
"""Seconds that `down` waits after SIGTERM, and again after SIGKILL."""
MARKER: t.Final = ".virtual-rv"
"""File that says that a directory belongs to virtual RVs, running or not: nothing is removed without it."""
PID_FILE: t.Final = "supervisor.pid"
OUTCOME_FILE: t.Final = "outcome.json"
FILES: t.Final = ("rv.json", "hosts.json", "env", "ca.pem", "server.crt", "server.key", PID_FILE, OUTCOME_FILE)
FOLDERS: t.Final = ("database", "bridge")


class SupervisorError(Exception):
    """`up` or `down` failed; the text says why and what to do."""


def make_config(path: pathlib.Path | None, modules: int | None) -> Config:
    """Return the config of a file, or the default one.

    :raises ConfigError: when it cannot be used, or both are given
    """
    if path is None:
        return default_config() if modules is None else default_config(modules)
    if modules is not None:
        raise ConfigError("give either --config or --modules")
    return load_config(path)


def up(folder: pathlib.Path, config: pathlib.Path | None, modules: int | None, *, with_bridge: bool) -> None:
    """Start an RV in the background; return when everything answers.

    :raises ConfigError: when the config cannot be used
    :raises SupervisorError: when one runs there already, or it did not start
    """
    if running_pid(folder) is not None:
        raise SupervisorError(f"a virtual RV runs in {folder} already; use it, or end it with `down`")
    make_config(config, modules)
    _claim(folder)
    (folder / "log").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "virtual_rv", "supervise", "--directory", str(folder)]
    command += ["--config", str(config.resolve())] if config else []
    command += ["--modules", str(modules)] if modules is not None else []
    command += [] if with_bridge else ["--no-bridge"]
    with (folder / "log" / "rv.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    (folder / PID_FILE).write_text(f"{process.pid}\n")
    with contextlib.ExitStack() as undo:
        undo.callback(down, folder)
        _wait_for_start(folder, process)
        undo.pop_all()


def down(folder: pathlib.Path) -> bool:
    """End the RV in ``folder`` and all its processes; False when none ran. Its `log/` stays.

    :raises SupervisorError: when a process could not be ended
    """
    was_running = running_pid(folder) is not None
    if was_running:
        with contextlib.suppress(ControlError):
            ask(folder, "stop")
        _wait_for_end(folder, STOP_TIMEOUT)
    left = _end_session(_read_pid(folder))
    if left:
        raise SupervisorError(f"processes of the virtual RV in {folder} do not end: {left}")
    clear(folder)
    return was_running


def clear(folder: pathlib.Path) -> None:
    """Remove what an RV that is gone left behind, except its logs; nothing where none ever ran."""
    if not (folder / MARKER).exists():
        return
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    for name in FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)


def running_pid(folder: pathlib.Path) -> int | None:
    """Return the id of the RV's process in ``folder``, or None when it is gone."""
    pid = _read_pid(folder)
    try:
        arguments = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    return pid if b"supervise" in arguments and str(folder).encode() in arguments else None


def _claim(folder: pathlib.Path) -> None:
    """Make a directory one of virtual RVs, and empty it of an earlier one.

    :raises SupervisorError: when it holds files of somebody else's that an RV would overwrite
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MARKER).exists():
        foreign = [name for name in (*FILES, *FOLDERS) if (folder / name).exists()]
        if foreign:
            raise SupervisorError(f"{folder} holds {', '.join(foreign)} of something else; give another directory")
        (folder / MARKER).touch()
    down(folder)


def _read_pid(folder: pathlib.Path) -> int | None:
    try:
        return int((folder / PID_FILE).read_text())
    except (OSError, ValueError):
        return None


def _session(pid: int | None) -> list[int]:
    """Return the processes of an RV's session, which are its own children after the RV itself is gone, too."""
    members = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session, *_ = entry.read_text().rpartition(")")[2].split()
            if int(session) == pid and state != "Z":
                members.append(int(entry.parent.name))
    return members


def _end_session(pid: int | None) -> list[int]:
    """End what is left of an RV's session; return what could not be ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + KILL_TIMEOUT
        for member in _session(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, number)
        while _session(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
    return _session(pid)


def _wait_for_start(folder: pathlib.Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not (folder / OUTCOME_FILE).exists():
        if process.poll() is not None:
            raise SupervisorError(f"the virtual RV ended at its start; read {folder / 'log' / 'rv.log'}")
        if time.monotonic() > deadline:
            raise SupervisorError(f"the virtual RV did not answer in {START_TIMEOUT:.0f} s; read {folder / 'log'}")
        time.sleep(0.05)
    error = json.loads((folder / OUTCOME_FILE).read_text())["error"]
    if error:
        raise SupervisorError(error)
    ask(folder, "status")


def _wait_for_end(folder: pathlib.Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while running_pid(folder) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def supervise(folder: pathlib.Path, config: Config, *, with_bridge: bool) -> int:
    """Run an RV in this process until SIGTERM or `stop`; return the exit status."""
    from .rv import VirtualRv

    _log_to_stderr()
    return asyncio.run(_supervise(VirtualRv(folder, config, with_bridge=with_bridge), folder))


async def _supervise(rv: VirtualRv, folder: pathlib.Path) -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, rv.stopped.set)
    from .rv import StartError

    error = ""
    try:
        await rv.start()
    except StartError as failure:
        error = str(failure)
    _write_outcome(folder, error)
    if not error:
        await rv.stopped.wait()
        await asyncio.sleep(0.05)
    await rv.stop()
    return 1 if error else 0


def run_modules(config: Config, folder: pathlib.Path | None) -> int:
    """Run only the emulated modules in this process until SIGTERM; return the exit status."""
    from .rv import Modules

    _log_to_stderr()
    return asyncio.run(_run_modules(Modules(config), folder))


async def _run_modules(modules: Modules, folder: pathlib.Path | None) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    control = ControlServer(folder, modules.handle) if folder else None
    await modules.start()
    if control:
        await control.start()
    print(json.dumps(modules.describe()), flush=True)
    await stopped.wait()
    if control:
        await control.stop()
    await modules.stop()
    return 0


def _write_outcome(folder: pathlib.Path, error: str) -> None:
    temporary = folder / f"{OUTCOME_FILE}.new"
    temporary.write_text(json.dumps({"error": error}))
    temporary.replace(folder / OUTCOME_FILE)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    for name in ("amqtt", "transitions", "secantus", "can", "pymongo"):
        logging.getLogger(name).setLevel(logging.WARNING)


__all__ = ["NotRunningError", "SupervisorError", "clear", "down", "make_config", "run_modules", "supervise", "up"]
