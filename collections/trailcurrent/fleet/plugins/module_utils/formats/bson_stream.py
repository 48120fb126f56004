"""BSON documents one after the other, as ``mongodump`` writes a collection (bsonspec.org; the length comes first).

Only the frame of a document is looked at here: what is in it is the database's business.
"""

from __future__ import annotations

import collections.abc
import typing as t

from ..errors import InputError

SMALLEST: t.Final = 5  # bytes: a length and the zero byte at the end
LARGEST: t.Final = 16 * 1024 * 1024 + 16 * 1024  # bytes; MongoDB's own limit, and the room that it keeps for itself
_LENGTH: t.Final = 4  # bytes, little-endian, signed; it counts itself

Read = collections.abc.Callable[[int], bytes]


def documents(read: Read, subject: str) -> collections.abc.Iterator[bytes]:
    """Each document, whole; at most one is held at a time.

    :param read: a file's ``read``: at most so many bytes, none only at the end
    :param subject: what to call the stream in an error
    :raises InputError: ``backup_damaged``
    """
    number = 0
    while head := _exactly(read, _LENGTH):
        number += 1
        size = int.from_bytes(head, "little", signed=True) if len(head) == _LENGTH else 0
        if not SMALLEST <= size <= LARGEST:
            raise _damaged(subject, number, f"its length cannot be ({len(head)} bytes say {size})")
        document = head + _exactly(read, size - _LENGTH)
        if len(document) < size:
            raise _damaged(subject, number, f"it ends after {len(document)} of {size} bytes")
        if document[-1]:
            raise _damaged(subject, number, "it does not end where its length says")
        yield document


def _exactly(read: Read, count: int) -> bytes:
    """So many bytes, fewer only where the stream ends."""
    parts, missing = [], count
    while missing and (part := read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _damaged(subject: str, number: int, seen: str) -> InputError:
    return InputError(
        "backup_damaged",
        f"Document {number} of {subject} cannot be read: {seen}; take another backup.",
        document=number,
    )
