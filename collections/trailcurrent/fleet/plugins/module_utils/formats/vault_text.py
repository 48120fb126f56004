"""Whether a file of Ansible Vault is whole, which its password is not needed for.

Format 1.1 and 1.2 (Ansible's documentation, "Format of files encrypted with Ansible Vault"): a header line, then salt,
HMAC and ciphertext, each in hex, joined by line feeds, all of it in hex once more, in lines of 80. AES pads to 16
bytes, so the length is known modulo 64, and no file that was cut off has such a length and a line feed at its end.
"""

from __future__ import annotations

import re
import typing as t

from ..errors import InputError

LINE: t.Final = 80  # hex digits
_HEADER: t.Final = re.compile(rb"\$ANSIBLE_VAULT;1\.[12];AES256(;[^\n]*)?")
_STEP: t.Final = 64  # digits: a block of 16 bytes, twice in hex
_REST: t.Final = 2 * (64 + 1 + 64 + 1) % _STEP
_DIGITS: t.Final = re.compile(rb"[0-9a-f]+")


def check_whole(content: bytes, subject: str) -> None:
    """Refuse what was cut off, and what is no such file.

    :param subject: what to call the file in an error
    :raises InputError: ``backup_damaged``
    """
    header, *lines = content.replace(b"\r\n", b"\n").split(b"\n")
    if not _HEADER.fullmatch(header):
        raise _damaged(subject, "it is not encrypted by Ansible Vault")
    if lines[-1:] != [b""] or len(lines) < 2:
        raise _damaged(subject, "it is cut off")
    for number, line in enumerate(lines[:-1], start=2):
        if not _DIGITS.fullmatch(line):
            raise _damaged(subject, f"line {number} has something else than hex digits")
    if any(len(line) != LINE for line in lines[:-2]) or sum(map(len, lines)) % _STEP != _REST:
        raise _damaged(subject, "it is cut off, or lines are missing")


def _damaged(subject: str, seen: str) -> InputError:
    return InputError(
        "backup_damaged", f"{subject} cannot be restored: {seen}; nothing was changed, take another backup."
    )
