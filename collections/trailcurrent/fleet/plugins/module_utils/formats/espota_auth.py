"""Answers to a device's challenge, pure functions of what both sides know (ESPOTA.md, 2)."""

from __future__ import annotations

import hashlib
import typing as t

from .espota_text import MD5_NONCE, SHA256_NONCE

PBKDF2_ROUNDS: t.Final = 10_000  # cores 3.3.1 and later
PBKDF2_BYTES: t.Final = 32
AUTH_COMMAND: t.Final = 200


def key_hashes(password: str, nonce: str) -> tuple[str, ...]:
    """What the device may have stored of the password, in the order to try.

    A device with SHA-256 stores the SHA-256 of its password; a sketch written for older cores handed it the MD5.

    :raises ValueError: the nonce has a length that no device sends
    """
    secret = password.encode("utf-8")
    md5 = hashlib.md5(secret, usedforsecurity=False).hexdigest()
    schemes = {MD5_NONCE: (md5,), SHA256_NONCE: (hashlib.sha256(secret).hexdigest(), md5)}
    if len(nonce) not in schemes:
        raise ValueError(f"a nonce has {MD5_NONCE} or {SHA256_NONCE} digits, not {len(nonce)}")
    return schemes[len(nonce)]


def md5_response(key_hash: str, nonce: str, cnonce: str) -> str:
    """The response of cores before 3.3.1: 32 lower-case hex digits."""
    return hashlib.md5(f"{key_hash}:{nonce}:{cnonce}".encode("ascii"), usedforsecurity=False).hexdigest()


def sha256_response(key_hash: str, nonce: str, cnonce: str) -> str:
    """The response of cores 3.3.1 and later: 64 lower-case hex digits. Takes some 10 ms on purpose (PBKDF2)."""
    salt = f"{nonce}:{cnonce}".encode("ascii")
    key = hashlib.pbkdf2_hmac("sha256", key_hash.encode("ascii"), salt, PBKDF2_ROUNDS, PBKDF2_BYTES).hex()
    return hashlib.sha256(f"{key}:{nonce}:{cnonce}".encode("ascii")).hexdigest()


def auth_reply(key_hash: str, nonce: str, cnonce: str) -> bytes:
    """The datagram that answers the challenge ``nonce``; ``cnonce`` is random hex digits, as many as the nonce has."""
    respond = md5_response if len(nonce) == MD5_NONCE else sha256_response
    return f"{AUTH_COMMAND} {cnonce} {respond(key_hash, nonce, cnonce)}\n".encode("ascii")
