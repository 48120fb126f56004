"""Raw deflate by zlib-ng, block by block on all cores; the bytes depend on content, level and library alone.

Each block of 1 MiB is a deflate run of its own that knows the 32 KiB before it, and ends on a byte
(docs/bundle-format.md, "Compression"). Blocks can so be compressed beside each other; any inflater reads them as one
stream.
"""

from __future__ import annotations

import collections
import collections.abc
import concurrent.futures
import os
import sys
import threading
import types
import typing as t
import zlib

from ..errors import LinkError

try:
    import zlib_ng as _package
    from zlib_ng import zlib_ng
except ImportError as missing:
    ZLIB_NG_MISSING: ImportError | None = missing
    LIBRARY: str = "no zlib-ng"
    _VERSION: str = ""
else:
    ZLIB_NG_MISSING = None
    _VERSION = str(zlib_ng.ZLIBNG_RUNTIME_VERSION)
    LIBRARY = f"zlib-ng {_VERSION} (python {_package.__version__})"

PROVEN: t.Final = "2.3.3"
"""The zlib-ng whose bytes the tests know (test_deflate.py); requirements/*.lock bring it, in the package 1.1.0."""

BLOCK: t.Final = 1024 * 1024  # bytes; as small as costs nothing (5 bytes for each), so that memory stays small
WINDOW: t.Final = 32 * 1024  # bytes; as far back as deflate can point (RFC 1951, 2)
LEVELS: t.Final = range(1, 10)
MOST_WORKERS: t.Final = 6  # threads; each has some 8 MiB in its hands, and a build at most 100 MB
WAITING: t.Final = 4  # blocks that wait for a thread, or to be taken
_RAW: t.Final = -15  # zlib's wbits: 32 KiB of window, no header and no trailer
_MEMORY_LEVEL: t.Final = 8  # zlib's default; part of what decides the bytes
_STRATEGY: t.Final = 0  # zlib's default

Blocks = collections.abc.Iterator[bytes]
Pieces = collections.abc.Generator[bytes, None, None]
Task = tuple[bytes, bytes, bool]


class Inflater(t.Protocol):
    """What both zlib and zlib-ng give to take a raw deflate stream apart."""

    @property
    def eof(self) -> bool:
        """Whether the stream's last block was seen."""

    @property
    def unused_data(self) -> bytes:
        """What came after the end of the stream."""

    @property
    def unconsumed_tail(self) -> bytes:
        """Input that ``max_length`` left over."""

    def decompress(self, data: bytes, max_length: int = 0, /) -> bytes:
        """Up to ``max_length`` bytes of content (0: all there is); raises the library's own ``error``."""


if ZLIB_NG_MISSING is None:
    INFLATE_ERRORS: tuple[type[Exception], ...] = (zlib.error, t.cast("type[Exception]", zlib_ng.error))
else:
    INFLATE_ERRORS = (zlib.error,)
"""What an inflater raises on a stream that is none."""


def check_library() -> None:
    """Whether this Python can compress.

    :raises LinkError: ``requirement_unmet``
    """
    if ZLIB_NG_MISSING is not None:
        raise LinkError(
            "requirement_unmet",
            f"A bundle cannot be built by {sys.executable}: it has no zlib-ng, whose bytes a bundle is made of; install"
            " zlib-ng (`pip install zlib-ng`) for that Python.",
        ) from ZLIB_NG_MISSING


def other_library() -> str:
    """What to warn of when this zlib-ng is not the one that bundles are made with; empty when it is."""
    if _VERSION == PROVEN:
        return ""
    return (
        f"This Python has zlib-ng {_VERSION}, and bundles are made with {PROVEN}: the bytes of this one, its manifest"
        " and its signature may differ from those built elsewhere; install what requirements/runtime.lock pins."
    )


def inflater() -> Inflater:
    """A decompressor of a raw deflate stream; zlib's where zlib-ng is not installed."""
    if ZLIB_NG_MISSING is None:
        return t.cast(Inflater, zlib_ng.decompressobj(_RAW))
    return zlib.decompressobj(_RAW)


def deflate_block(block: bytes, window: bytes, level: int, *, last: bool) -> bytes:
    """One block of a stream.

    :param window: the ``WINDOW`` bytes before it, none for the first
    :param last: whether the stream ends with it
    """
    known = {"zdict": window} if window else {}
    compressor = zlib_ng.compressobj(level, zlib_ng.DEFLATED, _RAW, _MEMORY_LEVEL, _STRATEGY, **known)
    return compressor.compress(block) + compressor.flush(zlib_ng.Z_FINISH if last else zlib_ng.Z_SYNC_FLUSH)


def deflate(blocks: Blocks, level: int) -> Pieces:
    """A stream on the calling thread alone; one piece for each block."""
    return (deflate_block(block, window, level, last=last) for block, window, last in _tasks(blocks))


def _tasks(blocks: Blocks) -> collections.abc.Iterator[Task]:
    """Each block with what is before it, and whether it is the last: known when there is none after it."""
    window, block = b"", next(blocks, b"")
    for following in blocks:
        yield block, window, False
        window, block = block[-WINDOW:], following
    yield block, window, True


class Deflater:
    """Compresses several streams on all cores. A context manager: its threads end with it, what is left is dropped.

    with Deflater(level=9) as deflater:
        for piece in deflater.deflate(blocks): ...
    """

    def __init__(self, level: int, workers: int | None = None) -> None:
        self.level = level
        count = min(workers or len(os.sched_getaffinity(0)), MOST_WORKERS)
        self._pool = concurrent.futures.ThreadPoolExecutor(count, "deflate")
        # Blocks in flight of all streams: those that are worked on, and some that wait.
        self._slots = threading.Semaphore(count + WAITING)

    def __enter__(self) -> Deflater:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def deflate(self, blocks: Blocks) -> Pieces:
        """A stream, in order; ``blocks`` of ``BLOCK`` bytes are read as they are needed. One piece for each block.

        Several threads may each have a stream of theirs compressed at the same time. Close what is not read to its
        end: it holds blocks in flight.
        """
        waiting: collections.deque[concurrent.futures.Future[bytes]] = collections.deque()
        try:
            for task in _tasks(blocks):
                # Who waits for a slot must not sit on results: another stream would wait for it in turn.
                while not self._slots.acquire(blocking=not waiting):
                    yield waiting[0].result()
                    self._forget(waiting)
                waiting.append(self._pool.submit(self._run, task))
            while waiting:
                yield waiting[0].result()
                self._forget(waiting)
        finally:
            while waiting:
                waiting[0].cancel()
                self._forget(waiting)

    def _forget(self, waiting: collections.deque[concurrent.futures.Future[bytes]]) -> None:
        waiting.popleft()
        self._slots.release()

    def _run(self, task: Task) -> bytes:
        block, window, last = task
        return deflate_block(block, window, self.level, last=last)
