"""Contents to parts: hashed, and compressed where that pays, in one reading pass on all cores."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import functools
import hashlib
import typing as t
import zlib

from ...errors import FleetError
from ...links.deflate import BLOCK, MOST_WORKERS, Blocks, Deflater, Pieces, deflate
from ..parallel import Advance, Progress, Task, run, silent
from .gather import Content
from .parts import Part, PartStore, stored

LEAST_GAIN: t.Final = 3  # percent; for less, a Pi would inflate what was compressed already
LARGE: t.Final = 8 * BLOCK  # bytes from which one content is compressed on several cores
STREAMS: t.Final = 3  # of those at a time: their readers keep all cores busy, and each holds blocks in memory

Compress = collections.abc.Callable[[Blocks], Pieces]
Parts = dict[Content, Part]
"""Each content with what stands for it. Not by path: deploy.sh lies beside the release and could lie in it."""


def pack(
    contents: collections.abc.Sequence[Content], store: PartStore, level: int, progress: Progress = silent
) -> Parts:
    """The parts of all contents, in ``store`` afterwards as far as they are compressed.

    :param progress: called with ``hashing``, then ``compressing``, and bytes of content
    :raises FleetError: ``source_missing``, ``source_invalid``, ``state_unwritable``, ``disk_full``
    """
    with Deflater(level) as deflater:
        packer = _Packer(store, deflater)
        known = [content for content in contents if store.may_have(content.size)]
        _run_all([Task(one.size, functools.partial(packer.look_up, one)) for one in known], known, "hashing", progress)
        left = [content for content in contents if content not in packer.parts]
        _run_all(_squeezing(packer, left), left, "compressing", progress)
    return packer.parts


def _run_all(tasks: list[Task], contents: list[Content], phase: str, progress: Progress) -> None:
    if tasks:
        run(tasks, phase, sum(content.size for content in contents), progress)


def _squeezing(packer: _Packer, contents: list[Content]) -> list[Task]:
    """Small contents beside each other first, then the large ones in some streams that share all cores."""
    ranked = sorted(contents, key=lambda content: -content.size)
    large = collections.deque(content for content in ranked if content.size >= LARGE)
    small = collections.deque(content for content in ranked if content.size < LARGE)

    def work(queues: collections.abc.Sequence[collections.deque[Content]], advance: Advance) -> None:
        for queue in queues:
            while content := _next(queue):
                try:
                    packer.squeeze(content, advance)
                except FleetError:  # nothing that is left can matter
                    small.clear()
                    large.clear()
                    raise

    count = min(MOST_WORKERS, len(contents))
    return [
        Task(0, functools.partial(work, [small, large] if number < STREAMS else [small])) for number in range(count)
    ]


def _next(queue: collections.deque[Content]) -> Content | None:
    """What is left, for one of several threads that ask."""
    try:
        return queue.popleft()
    except IndexError:
        return None


class _Packer:
    def __init__(self, store: PartStore, deflater: Deflater) -> None:
        self._store = store
        self._deflater = deflater
        self.parts: Parts = {}

    def look_up(self, content: Content, advance: Advance) -> None:
        """Take what the store has."""
        reading = _Reading(content, advance)
        for _block in reading.blocks:
            pass
        found = reading.result()
        part = self._store.find(found.sha256, found.size, found.crc32)
        if part is not None:
            self.parts[content] = part

    def squeeze(self, content: Content, advance: Advance) -> None:
        """Compress what it has not."""
        compress = self._deflater.deflate if content.size >= LARGE else self._alone
        reading = _Reading(content, advance)
        with self._store.draft() as draft:
            with contextlib.closing(compress(reading.blocks)) as pieces:
                for number, piece in enumerate(pieces):
                    if not number and not _pays(min(content.size, BLOCK), len(piece)):
                        break
                    draft.write(piece)
            for _block in reading.blocks:  # what a break left over
                pass
            pays = draft.size > 0 and _pays(content.size, draft.size)
            self.parts[content] = draft.keep(reading.result(), compressed=pays)

    def _alone(self, blocks: Blocks) -> Pieces:
        return deflate(blocks, self._deflater.level)


def _pays(size: int, compressed: int) -> bool:
    return compressed * 100 <= size * (100 - LEAST_GAIN)


class _Reading:
    """A content on its way through, which leaves its digests behind."""

    def __init__(self, content: Content, advance: Advance) -> None:
        self._content = content
        self._advance = advance
        self._digest = hashlib.sha256()
        self._crc32 = 0
        self.blocks = self._read()

    def _read(self) -> Blocks:
        for block in self._content.blocks():
            self._digest.update(block)
            self._crc32 = zlib.crc32(block, self._crc32)
            self._advance(len(block))
            yield block

    def result(self) -> Part:
        """What was read, as a part that is stored."""
        return stored(self._content.size, self._digest.hexdigest(), self._crc32)
