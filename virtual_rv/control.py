"""How the command line talks to a running virtual RV: one line of JSON each way, over a socket in its directory.

A request is ``{"command": "status" | "faults" | "power_cycle" | "stop", ...}``; an answer is ``{"ok": ...}`` or
``{"error": sentence}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import socket
import typing as t

SOCKET_NAME: t.Final = "control.sock"
ANSWER_TIMEOUT: t.Final = 30.0
"""Seconds: a power cycle of all modules takes the longest."""

Json = dict[str, t.Any]
Handler = t.Callable[[Json], t.Awaitable[Json]]


class ControlError(Exception):
    """The running RV did not do it; the text says why."""


class NotRunningError(ControlError):
    """No virtual RV answers in this directory."""


class ControlServer:
    """Answers requests, from `start` to `stop`."""

    def __init__(self, folder: pathlib.Path, handler: Handler) -> None:
        self._folder = folder
        self._handler = handler
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to listen; a socket that a dead process left is replaced."""
        with contextlib.suppress(FileNotFoundError):
            (self._folder / SOCKET_NAME).unlink()
        with _short_path(self._folder) as path:
            self._server = await asyncio.start_unix_server(self._serve, path)

    async def stop(self) -> None:
        """Stop listening and remove the socket."""
        if self._server:
            self._server.close()
        with contextlib.suppress(FileNotFoundError):
            (self._folder / SOCKET_NAME).unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps(await self._answer(await reader.readline())).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _answer(self, line: bytes) -> Json:
        try:
            return {"ok": await self._handler(json.loads(line))}
        except (ValueError, KeyError) as error:
            return {"error": str(error)}


def ask(folder: pathlib.Path, command: str, **arguments: t.Any) -> Json:
    """Send one request to the RV that runs in ``folder``, and return its answer.

    :raises NotRunningError: when none answers there
    :raises ControlError: when it refuses
    """
    try:
        with _short_path(folder) as path, socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(ANSWER_TIMEOUT)
            sock.connect(path)
            sock.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            with sock.makefile("rb") as answer:
                line = answer.readline()
    except OSError as error:
        raise NotRunningError(f"no virtual RV answers in {folder} ({error}); start one with `up`") from error
    if not line:
        raise NotRunningError(f"the virtual RV in {folder} ended while it was asked; read its log")
    reply: Json = json.loads(line)
    if "error" in reply:
        raise ControlError(reply["error"])
    return t.cast("Json", reply["ok"])


@contextlib.contextmanager
def _short_path(folder: pathlib.Path) -> t.Iterator[str]:
    """Yield a path of the socket that is short enough for the kernel (107 bytes), however deep the folder is."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)
