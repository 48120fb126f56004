"""State on disk, the lock, and events to follow: one format for a rollout and a deployment.

``<state_dir>/``
    ``lock``                 flock, with the holder inside (who, what, since when)
    ``modules/<key>.json``   what is known of one module, written atomically at each change of phase
    ``images/<sha256>.bin``  images to go back to, by content
    ``runs/<run>/``          ``events.jsonl`` to follow, ``outcome.json`` at the end, ``log`` of the process
    ``code/<sha256>.zip``    the program of a detached run

Percentages never touch the disk: they go to a file in memory (``/run`` or ``/dev/shm``), because an SD card
wears out (FIELD.md, state writes).
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import errno
import fcntl
import getpass
import hashlib
import json
import os
import pathlib
import queue
import re
import shutil
import tempfile
import threading
import time
import typing as t

from .errors import InputError, LinkError

SYSTEM_STATE_DIR: t.Final = pathlib.Path("/var/lib/trailcurrent")
USER_STATE_DIR: t.Final = "~/.local/state/trailcurrent"
VOLATILE_PARENTS: t.Final = ("/run", "/dev/shm", tempfile.gettempdir())
LOCK_PATIENCE: t.Final = 2.0  # s; a follower's probe holds the lock for microseconds only
LOCK_POLL: t.Final = 0.05  # s
RUNS_KEPT: t.Final = 20
DIGEST: t.Final = re.compile(r"[0-9a-f]{64}")
READ_LIMIT: t.Final = 256 * 1024  # bytes of events in one answer

Json = dict[str, t.Any]


def default_state_dir() -> pathlib.Path:
    """``/var/lib/trailcurrent`` where this user can write it (set-up makes it), else a folder at home."""
    if os.access(SYSTEM_STATE_DIR, os.W_OK) or os.access(SYSTEM_STATE_DIR.parent, os.W_OK):
        return SYSTEM_STATE_DIR
    try:
        return pathlib.Path(USER_STATE_DIR).expanduser()
    except RuntimeError as error:
        raise InputError(
            "invalid_option", "this user has no home folder; give a `state_dir` that it may write"
        ) from error


def write_atomically(path: pathlib.Path, content: bytes, mode: int = 0o644) -> None:
    """Replace ``path`` whole or not at all, also when the power goes.

    :raises LinkError: ``state_unwritable``, with the old content untouched
    """
    with _unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            pathlib.Path(name).replace(path)
        except OSError:
            pathlib.Path(name).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(folder: pathlib.Path) -> None:
    """Have a folder's names on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _unwritable(path: pathlib.Path) -> collections.abc.Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise LinkError(
            "state_unwritable",
            f"could not write {path}: {reason}; {_next_step(error)} and run it again",
            path=str(path),
        ) from error


def _next_step(error: OSError) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "free space on that disk"
    return "give this user a `state_dir` that it may write"


def read_json(path: pathlib.Path) -> Json | None:
    """The object in ``path``; None where there is none, or none that can be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who holds the lock."""

    pid: int
    user: str
    since: float
    what: str
    run: str
    request: str

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"{self.what} {self.run} of user {self.user} (process {self.pid}, since {since})"


class Lock:
    """One run at a time on this Pi: a flock that dies with its holder, never a stale file."""

    def __init__(self, state_dir: pathlib.Path) -> None:
        self._path = state_dir / "lock"
        self._handle: int | None = None

    def take(self, *, what: str, run: str, request: str) -> None:
        """Take the lock for this process.

        :raises InputError: ``locked``, naming the holder
        :raises LinkError: ``state_unwritable``
        """
        with _unwritable(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not _flock(handle, fcntl.LOCK_EX, LOCK_PATIENCE):
            os.close(handle)
            raise locked(self.holder())
        self._handle = handle
        holder = Holder(os.getpid(), _user(), time.time(), what, run, request)
        with _unwritable(self._path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(dataclasses.asdict(holder)).encode(), 0)

    @contextlib.contextmanager
    def held(self, *, what: str, run: str, request: str) -> collections.abc.Iterator[None]:
        """Take the lock for as long as the block runs; raises as ``take`` does."""
        self.take(what=what, run=run, request=request)
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Let the next one in; does nothing when this process does not hold it."""
        if self._handle is not None:
            os.ftruncate(self._handle, 0)  # whoever takes it next must not be read as us
            os.close(self._handle)
            self._handle = None

    def holder(self) -> Holder | None:
        """Who holds it now; None when nobody does."""
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if _flock(handle, fcntl.LOCK_SH, 0):
                return None
            return _read_holder(self._path)
        finally:
            os.close(handle)


def locked(holder: Holder | None) -> InputError:
    """The refusal of a run while another one holds the lock."""
    who = str(holder) if holder else "another process"
    return InputError(
        "locked",
        f"an update is under way on this RV: {who} holds the lock; wait for it to end, then run yours again",
        holder=dataclasses.asdict(holder) if holder else None,
    )


def _flock(handle: int, kind: int, patience: float) -> bool:
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(LOCK_POLL)
        else:
            return True


def _read_holder(path: pathlib.Path) -> Holder | None:
    data = read_json(path)
    try:
        return Holder(**data) if data else None
    except TypeError:
        return None


def _user() -> str:
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


@contextlib.contextmanager
def exclusive(path: pathlib.Path, patience: float) -> collections.abc.Iterator[None]:
    """One process at a time in the block; the others wait for ``patience`` seconds.

    :raises InputError: ``locked``
    :raises LinkError: ``state_unwritable``
    """
    with _unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _flock(handle, fcntl.LOCK_EX, patience):
            raise locked(None)
        yield
    finally:
        os.close(handle)


class RunFolder:
    """One run's events, progress and outcome: written by the run, read by whoever follows it.

    :param name: the run's name; it names a folder, so a hostile one is refused
    """

    def __init__(self, state_dir: pathlib.Path, name: str) -> None:
        if not name or set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-"):
            raise InputError("invalid_option", f"the run {name!r} cannot be: use the name that starting it returned")
        self.name = name
        self.path = state_dir / "runs" / name
        self._events = self.path / "events.jsonl"
        self._outcome = self.path / "outcome.json"
        marker = hashlib.sha256(str(self.path).encode()).hexdigest()[:16]
        self._progress_name = f"trailcurrent-{os.getuid()}-{marker}.json"
        self._progress: dict[str, Json] = {}
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None

    def create(self) -> None:
        """Make the folder, for its owner's eyes alone, and forget the oldest runs and every run's request.

        A request may hold passwords, and one that nobody read is of a run that never came up.
        """
        with _unwritable(self.path):
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        runs = sorted(self.path.parent.iterdir(), key=lambda folder: folder.stat().st_mtime)
        for old in runs[:-RUNS_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        for request in self.path.parent.glob("*/request.json"):
            request.unlink(missing_ok=True)

    def event(self, event: Json) -> None:
        """Append one event, by a thread: an SD card that takes its time must not stop eight uploads.

        A full disk loses the event, never the run: records and outcome report that.
        """
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_lines, daemon=True)
            self._writer.start()
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n"
        self._lines.put(line.encode())

    def flush(self) -> None:
        """Return when every event is written."""
        if self._writer is not None:
            self._lines.put(None)
            self._writer.join()
            self._writer = None

    def _write_lines(self) -> None:
        whole = True
        with contextlib.suppress(OSError), self._events.open("ab", buffering=0) as file:
            while (line := self._lines.get()) is not None:
                try:
                    text = line if whole else b"\n" + line
                    whole = file.write(text) == len(text)
                except OSError:
                    whole = False

    def events(self, offset: int) -> tuple[list[Json], int]:
        """The whole events from byte ``offset`` on, and where the next ones begin."""
        try:
            with self._events.open("rb") as file:
                file.seek(offset)
                chunk = file.read(READ_LIMIT)
        except OSError:
            return [], offset
        whole = chunk[: chunk.rfind(b"\n") + 1]
        return [event for line in whole.splitlines() if (event := _parsed(line))], offset + len(whole)

    def progress(self, subject: str, state: Json | None) -> None:
        """What ``subject`` is at just now, in memory only; None when it is done."""
        if state is None:
            self._progress.pop(subject, None)
        else:
            self._progress[subject] = state
        path = self._progress_path()
        with contextlib.suppress(OSError):
            spare = path.with_suffix(".new")
            spare.write_text(json.dumps(self._progress))
            spare.replace(path)

    def read_progress(self) -> Json:
        """What each subject is at just now."""
        return read_json(self._progress_path()) or {}

    def finish(self, outcome: Json) -> None:
        """Record the outcome, once, at the end; in memory where the disk is full.

        :raises LinkError: ``state_unwritable`` when it cannot be written anywhere
        """
        self.flush()
        content = json.dumps(outcome).encode()
        try:
            write_atomically(self._outcome, content, 0o600)
            self._progress_path().unlink(missing_ok=True)
        except LinkError:
            write_atomically(self._progress_path(), json.dumps({"outcome": outcome}).encode(), 0o600)

    def outcome(self) -> Json | None:
        """How it ended; None as long as it has not."""
        return read_json(self._outcome) or self.read_progress().get("outcome")

    def _progress_path(self) -> pathlib.Path:
        parent = next((p for p in VOLATILE_PARENTS if os.access(p, os.W_OK)), tempfile.gettempdir())
        return pathlib.Path(parent) / self._progress_name


def _parsed(line: bytes) -> Json | None:
    """One event; None for a line that a full disk tore."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


class Records:
    """What is known of each module, by its key: small files, each replaced whole."""

    def __init__(self, state_dir: pathlib.Path) -> None:
        self._folder = state_dir / "modules"

    def read(self, key: str) -> Json:
        """The record of ``key``; empty where there is none, or none that can be read."""
        return read_json(self._folder / f"{key}.json") or {}

    def all(self) -> list[Json]:
        """Every record that can be read."""
        return [record for path in sorted(self._folder.glob("*.json")) if (record := read_json(path))]

    def write(self, key: str, record: Json) -> None:
        """Replace the record of ``key``.

        :raises LinkError: ``state_unwritable``
        """
        write_atomically(self._folder / f"{key}.json", json.dumps(record, indent=1).encode())


class ImageStore:
    """Images by content, so that an old one can go back when the new one fails."""

    def __init__(self, state_dir: pathlib.Path) -> None:
        self._folder = state_dir / "images"

    def put(self, sha256: str, image: bytes) -> None:
        """Keep ``image``.

        :raises LinkError: ``state_unwritable``
        """
        path = self._path(sha256)
        if self.get(sha256) is None:
            write_atomically(path, image)

    def get(self, sha256: str) -> bytes | None:
        """The image; None when it is not here, or is damaged (an SD card forgets)."""
        if not DIGEST.fullmatch(sha256):
            return None  # it comes from a file, and would be a path
        try:
            image = self._path(sha256).read_bytes()
        except OSError:
            return None
        return image if hashlib.sha256(image).hexdigest() == sha256 else None

    def prune(self, kept: collections.abc.Container[str]) -> None:
        """Remove what no module would go back to."""
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path.stem not in kept:  # what a power cut left half-written, too
                path.unlink(missing_ok=True)

    def _path(self, sha256: str) -> pathlib.Path:
        return self._folder / f"{sha256}.bin"
