"""Where the files of a tar lie in it, read strictly: POSIX 1003.1 (ustar, pax) and what GNU tar adds for long names.

Nothing is ever unpacked by name. Python's ``tarfile`` takes a damaged header in the middle for the end of the archive;
here that is an error, as are names that climb out, devices, sparse files and names that stand there twice.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import posixpath
import tarfile
import typing as t

BLOCK: t.Final = 512  # bytes; POSIX 1003.1, ustar interchange format
MEMBERS_LIMIT: t.Final = 20_000  # an image has at most 125 layers of 3 files each; a folder of blobs some hundreds
TEXT_LIMIT: t.Final = 64 * 1024  # bytes of a long name or of extended records; the longest path of Linux has 4,096
HOPS: t.Final = 8  # links that may follow one another; engines write one

_FILES: t.Final = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE}
_LINKS: t.Final = {tarfile.SYMTYPE, tarfile.LNKTYPE}
_LONG: t.Final = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_PAX: t.Final = {tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE}
_ABOUT_THE_NEXT: t.Final = {*_LONG, *_PAX, tarfile.XGLTYPE}

Read = collections.abc.Callable[[int, int], bytes]
"""``read(offset, size)``: fewer bytes only at the end."""


class TarError(ValueError):
    """The archive cannot be used; the text says what is wrong with it, as the end of a sentence about it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A file (its bytes begin at ``offset``), or a link: ``target`` is the name in the archive that it leads to."""

    name: str
    offset: int
    size: int
    target: str | None = None


def list_members(read: Read, size: int) -> dict[str, Member]:
    """The files and links of a tar of ``size`` bytes, by name.

    :raises TarError: it is none, ends too early, or holds what no engine writes
    """
    members: dict[str, Member] = {}
    for member in _walk(read, size):
        if member.name in members:
            raise TarError(f"it has {member.name!r} twice")
        if len(members) == MEMBERS_LIMIT:
            raise TarError(f"it has more than {MEMBERS_LIMIT} files")
        members[member.name] = member
    return members


def resolve(members: collections.abc.Mapping[str, Member], name: str) -> Member:
    """The file of that name, links followed.

    :raises TarError: it is not there, or its link leads nowhere
    """
    found = members.get(name)
    for _hop in range(HOPS):
        if found is None or found.target is None:
            break
        found = members.get(found.target)
    if found is None or found.target is not None:
        reason = "is a link that leads to no file of it" if name in members else "is not in it"
        raise TarError(f"{name!r} {reason}")
    return found


def file_header(name: str, size: int) -> bytes:
    """The header of a file, a function of its arguments alone: owner root, mode 0644, time 0; GNU's above 8 GiB."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT, "ascii")


def padding(size: int) -> bytes:
    """What follows a file of ``size`` bytes up to the next block."""
    return bytes(-size % BLOCK)


END: t.Final = bytes(2 * BLOCK)
"""What ends a tar: two empty blocks."""


def _walk(read: Read, size: int) -> collections.abc.Iterator[Member]:
    extended: dict[str, str] = {}
    offset = 0
    while header := _header(read, offset, size):
        start, kind = offset + BLOCK, header.type
        length = 0 if kind in _LINKS else _length(header, {} if kind in _ABOUT_THE_NEXT else extended)
        offset = start + length + -length % BLOCK
        if start + length > size:
            raise TarError(
                f"it ends at byte {size}, within {_name(header, extended)!r}, which would end at {start + length}"
            )
        if kind in _LONG:
            extended[_LONG[kind]] = _text(_small(read, start, length).rstrip(b"\0"))
        elif kind in _PAX:
            extended.update(_records(_small(read, start, length)))
        elif kind != tarfile.XGLTYPE:
            if (member := _member(header, extended, start, length)) is not None:
                yield member
            extended = {}


def _header(read: Read, offset: int, size: int) -> tarfile.TarInfo | None:
    """The header at ``offset``; None for the empty block that ends an archive."""
    block = read(offset, BLOCK)
    if len(block) < BLOCK:
        raise TarError(f"it ends at byte {size}, before the end of a tar" if offset else "it is no tar")
    if not any(block):
        if not offset:
            raise TarError("it is an empty tar")
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        seen = f"there is no header of a file at byte {offset}, where one must be" if offset else "it is no tar"
        raise TarError(seen) from None


def _length(header: tarfile.TarInfo, extended: collections.abc.Mapping[str, str]) -> int:
    stated = extended.get("size", str(header.size))
    if not stated.isdecimal() or not stated.isascii():
        raise TarError(f"{_name(header, extended)!r} has the size {stated!r}, which is none")
    return int(stated)


def _name(header: tarfile.TarInfo, extended: collections.abc.Mapping[str, str]) -> str:
    return extended.get("path", header.name)


def _member(
    header: tarfile.TarInfo, extended: collections.abc.Mapping[str, str], start: int, length: int
) -> Member | None:
    name = _inside(_name(header, extended), "")
    if header.type in _FILES:
        return Member(name, start, length)
    if header.type in _LINKS:
        link = extended.get("linkpath", header.linkname)
        base = posixpath.dirname(name) if header.type == tarfile.SYMTYPE else ""
        return Member(name, start, 0, _inside(link, base))
    if header.type == tarfile.DIRTYPE:
        return None
    raise TarError(f"{name!r} is neither a file, a folder nor a link (type {header.type!r})")


def _inside(path: str, base: str) -> str:
    """The plain name of ``path`` seen from the folder ``base``, which must not leave the archive."""
    plain = posixpath.normpath(posixpath.join(base, path))
    if not path or path.startswith("/") or plain == ".." or plain.startswith("../"):
        raise TarError(f"{path!r} leads out of it")
    return plain


def _small(read: Read, start: int, length: int) -> bytes:
    if length > TEXT_LIMIT:
        raise TarError(f"it has a name of {length} bytes at byte {start}")
    return read(start, length)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _records(data: bytes) -> dict[str, str]:
    """The records of a pax header: ``<length> <key>=<value>\\n``, the length counting itself."""
    records = {}
    while data.strip(b"\0"):
        digits, _space, _rest = data.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 6 else 0
        key, equals, value = data[len(digits) + 1 : length - 1].partition(b"=")
        if not equals or data[length - 1 : length] != b"\n":
            raise TarError("it has extended records that are none")
        if key.startswith(b"GNU.sparse"):
            raise TarError("it has a sparse file")
        records[_text(key)] = _text(value)
        data = data[length:]
    return records
