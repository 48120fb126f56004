"""Secrets as the RV's web app keeps them in its database (PROTOCOLS.md, MongoDB on the Pi).

    stored = encrypt("correct horse", key)
    decrypt(stored.ciphertext, stored.iv, key) == "correct horse"

AES-256-CBC with PKCS#7, ciphertext and IV in hex, the key is ENCRYPTION_KEY. No error here quotes a key or a value.
"""

from __future__ import annotations

import os
import re
import typing as t

from ..errors import InputError, RefusedError

try:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.padding import PKCS7
except ImportError as missing:
    CRYPTOGRAPHY_MISSING: ImportError | None = missing
else:
    CRYPTOGRAPHY_MISSING = None

KEY_NAME: t.Final = "ENCRYPTION_KEY"
BLOCK: t.Final = 16  # bytes; AES's, and so the IV's
_BLOCK_BITS: t.Final = 8 * BLOCK
_KEY: t.Final = re.compile(r"[0-9a-fA-F]{64}")
_HEX: t.Final = re.compile(r"(?:[0-9a-fA-F]{2})+")


class Encrypted(t.NamedTuple):
    """One secret as two keys of the database hold it: ``…_encrypted`` and ``…_iv``, both in hex."""

    ciphertext: str
    iv: str


def parse_key(text: str) -> bytes:
    """The 32 bytes of ENCRYPTION_KEY. :raises InputError: ``decryption_failed``, when it is not 64 hex digits"""
    if not _KEY.fullmatch(text):
        raise InputError(
            "decryption_failed",
            f"{KEY_NAME} cannot be used: it has {len(text)} characters, and must be 64 hex digits; "
            "restore it in the env file from a backup",
        )
    return bytes.fromhex(text)


def decrypt(ciphertext_hex: str, iv_hex: str, key_hex: str) -> str:
    """The secret. An empty ciphertext, which is a cleared secret, is not set and no business of this function.

    :raises InputError: ``decryption_failed``: the key is none
    :raises RefusedError: ``decryption_failed``: it is no such ciphertext, or was made with another key
    """
    key = parse_key(key_hex)
    ciphertext, iv = _bytes(ciphertext_hex, "ciphertext"), _bytes(iv_hex, "IV")
    if len(iv) != BLOCK or len(ciphertext) % BLOCK:
        raise _failed(f"its ciphertext has {len(ciphertext)} bytes and its IV {len(iv)}, not whole blocks of {BLOCK}")
    decryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).decryptor()
    unpadder = PKCS7(_BLOCK_BITS).unpadder()
    try:
        padded = decryptor.update(ciphertext) + decryptor.finalize()
        return (unpadder.update(padded) + unpadder.finalize()).decode()
    except ValueError:  # the padding, or UTF-8: its text would quote what was decrypted
        raise _failed(f"it was encrypted with another {KEY_NAME}, or is damaged") from None


def encrypt(plain: str, key_hex: str) -> Encrypted:
    """``plain`` under the key, with an IV of its own. :raises InputError: ``decryption_failed``: the key is none"""
    iv = os.urandom(BLOCK)
    encryptor = Cipher(algorithms.AES256(parse_key(key_hex)), modes.CBC(iv)).encryptor()
    padder = PKCS7(_BLOCK_BITS).padder()
    padded = padder.update(plain.encode()) + padder.finalize()
    return Encrypted((encryptor.update(padded) + encryptor.finalize()).hex(), iv.hex())


def _bytes(text: object, what: str) -> bytes:
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise _failed(f"its {what} is not hex digits")
    return bytes.fromhex(text)


def _failed(seen: str) -> RefusedError:
    return RefusedError(
        "decryption_failed",
        f"A secret of the RV's database cannot be decrypted: {seen}; "
        f"restore the right {KEY_NAME} in the env file, or enter the secret again in the web app",
    )
