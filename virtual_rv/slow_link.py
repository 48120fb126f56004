"""A TCP connection as a small board on a slow Wi-Fi has it: a window of a few kilobytes, and a delay each way.

Not every kernel has `netem`, and none gives a window of 5,744 bytes when asked (SO_RCVBUF counts its own book-keeping,
and newer kernels raise TCP_WINDOW_CLAMP again by themselves: tried on 6.18). So both are computed here, byte by byte::

    host writes -> kernel -> [ sent, while fewer than `window` bytes are out ] -> delay -> the board may read
    host sees   <- kernel <- delay <- [ the board read them: the window moves on ] / [ the board's answers ]

- What has been taken from the kernel is first staged: at most `window` bytes of it are on their way or with the board,
  the rest counts as not yet sent and leaves when the window moves on, a delay after the board has read.
- The stage holds two windows, and the kernel's own buffer is a little less than one (`prepare`): so the next window is
  at hand when it may leave, and the host's own reaction time and late timers do not add up. The host sees at most that
  much acknowledged too early, about 10 KB of a megabyte; the time of the last answer is right.
- The board's clock is an argument of each call and may lag behind the real one by a late timer: everything is computed
  from the ideal times. A host that fills the window gets window / (2 x delay), whatever the timers' resolution.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import math
import select
import socket
import struct
import typing as t

STAGED_WINDOWS: t.Final = 2
"""Bytes that are taken from the kernel at most, in windows: one on its way, and the next."""
KERNEL_BUFFER: t.Final = 4096
"""Bytes: SO_RCVBUF; below it, the kernel takes single segments, and a fast host is slowed down."""
SEGMENT: t.Final = 1436
"""Bytes: the maximum segment size of the ESP32's network stack; 5,744 is four of them."""
_RESET_EVENTS: t.Final = select.EPOLLHUP | select.EPOLLERR
_RESET_ON_CLOSE: t.Final = struct.pack("ii", 1, 0)


def prepare(sock: socket.socket, window: int) -> None:
    """Give a socket small buffers and segments; before it connects or listens (accepted sockets inherit them)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, min(SEGMENT, window))
    sock.setblocking(False)


async def sleep_until(moment: float) -> None:
    """Sleep until the loop's clock reads ``moment``; let others run at least once."""
    await asyncio.sleep(max(0.0, moment - asyncio.get_running_loop().time()))


class DelayLine:
    """Calls that are due at given times, made in the order given. Each gets the time it was due."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: collections.deque[tuple[float, t.Callable[[float], None]]] = collections.deque()
        self._timer: asyncio.TimerHandle | None = None

    def push(self, moment: float, call: t.Callable[[float], None]) -> None:
        """Make ``call`` at ``moment``, or at once when that is past and nothing is before it."""
        if not self._due and moment <= self._loop.time():
            call(moment)
            return
        self._due.append((moment, call))
        self._arm()

    def _arm(self) -> None:
        if self._timer is None and self._due:
            self._timer = self._loop.call_at(self._due[0][0], self._run)

    def _run(self) -> None:
        while self._due and self._due[0][0] <= self._loop.time():
            moment, call = self._due.popleft()
            call(moment)
        self._timer = None
        self._arm()


class SlowLink:
    """The board's end of one connection. All times are the loop's clock, in seconds."""

    def __init__(self, sock: socket.socket, *, window: int, delay: float) -> None:
        self._sock = sock
        self._window = window
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._to_host = DelayLine(self._loop)
        self._arrivals: collections.deque[tuple[float, int]] = collections.deque()
        self._stage = bytearray()
        self._staged = self._sent = self._here = self._read = self._moved = 0
        self._ended = False
        self._end_arrives: float | None = None
        self._news = asyncio.Event()
        self._closed = asyncio.Event()
        self._edges = select.epoll()
        self._edges.register(sock, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        self._loop.add_reader(self._edges.fileno(), self._on_edge)

    # what the board does

    def read(self, limit: int, clock: float) -> bytes:
        """Return what has reached the board by ``clock``, at most ``limit`` bytes, perhaps none."""
        self._arrive(clock)
        count = min(limit, self._here - self._read)
        if not count:
            return b""
        data = bytes(self._stage[:count])
        del self._stage[:count]
        self._read += count
        self._to_host.push(clock + self._delay, lambda moment: self._move(count, moment))
        return data

    def ended(self, clock: float) -> bool:
        """Tell whether the board knows by ``clock`` that the host closed or reset its side."""
        return self._end_arrives is not None and self._end_arrives <= clock

    def readable(self, clock: float) -> bool:
        """Tell whether there is something to read by ``clock``."""
        self._arrive(clock)
        return self._here > self._read

    async def wait(self, clock: float, deadline: float) -> float:
        """Wait for bytes or the end; return the board's time at which one was there, or else ``deadline``."""
        while not self.readable(clock) and not self.ended(clock):
            moments = [moment for moment, _ in list(self._arrivals)[:1]]
            moments += [] if self._end_arrives is None else [self._end_arrives]
            if moments and min(moments) <= deadline:
                await sleep_until(min(moments))
                return max(clock, min(moments))
            if self._loop.time() >= deadline:
                return deadline
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(None if math.isinf(deadline) else deadline):
                    await self._news.wait()
        return clock

    def write(self, data: bytes, clock: float) -> None:
        """Send ``data`` at ``clock``. The board never waits for the host to read: what has no room is lost."""
        self._to_host.push(clock + self._delay, lambda _: self._send(data))

    def close(self, clock: float) -> None:
        """Close at ``clock``, after what was written; unread data makes it a reset, as on the board."""
        self._to_host.push(clock + self._delay, lambda _: self._close())

    def abort(self) -> None:
        """Reset the connection now."""
        if not self._closed.is_set():
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._close()

    async def wait_closed(self) -> None:
        """Return when the connection is closed on the host's side, too."""
        await self._closed.wait()

    # what the kernel does

    def _on_edge(self) -> None:
        now = self._loop.time()
        for _, events in self._edges.poll(0):
            if events & _RESET_EVENTS and self._end_arrives is None:
                self._end_arrives = now + self._delay
        self._pull(now)

    def _pull(self, moment: float) -> None:
        """Take from the kernel what the stage has room for."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while (room := self._moved + STAGED_WINDOWS * self._window - self._staged) > 0 and not self._ended:
                data = self._sock.recv(room)
                self._ended = not data
                self._stage += data
                self._staged += len(data)
        self._send_on(moment)
        self._news.set()

    def _send_on(self, moment: float) -> None:
        """Let leave the host what the window has room for at ``moment``."""
        leaves = min(self._moved + self._window, self._staged)
        if leaves > self._sent:
            self._sent = leaves
            self._arrivals.append((moment + self._delay, leaves))
        if self._ended and self._end_arrives is None and self._sent == self._staged:
            self._end_arrives = moment + self._delay

    def _arrive(self, clock: float) -> None:
        while self._arrivals and self._arrivals[0][0] <= clock:
            self._here = self._arrivals.popleft()[1]

    def _move(self, count: int, moment: float) -> None:
        """The host learns at ``moment`` that the board has read ``count`` bytes: its window moves on."""
        self._moved += count
        if not self._closed.is_set():
            self._send_on(moment)
            self._pull(max(moment, self._loop.time()))

    def _send(self, data: bytes) -> None:
        if not self._closed.is_set():
            with contextlib.suppress(ConnectionError, BlockingIOError):
                self._sock.send(data)

    def _close(self) -> None:
        if self._closed.is_set():
            return
        self._loop.remove_reader(self._edges.fileno())
        self._edges.close()
        if self._stage:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # sends the last answer on
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._sock.close()
        self._closed.set()
        self._news.set()
