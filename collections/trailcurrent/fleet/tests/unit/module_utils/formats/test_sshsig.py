"""A signature file: one form alone is taken, and its parts are read as OpenSSH wrote them."""

from __future__ import annotations

import base64
import os
import pathlib
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import sshsig

# Made by `ssh-keygen -Y sign` of OpenSSH 9.2 over "hello\n"; the key was thrown away.
REAL = b"""\
-----BEGIN SSH SIGNATURE-----
U1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgxR2LbB39+VNh5bsENc8+rZ33pe
a2Bd+BiARzF1U6bUkAAAAXdHJhaWxjdXJyZW50LWRlcGxveW1lbnQAAAAAAAAABnNoYTUx
MgAAAFMAAAALc3NoLWVkMjU1MTkAAABA34zAb2AEMQWBgHywfMrEv7F7U8Mp1W4gSlU7GP
VltKeAxP86+TDU/BR/88a+dzS7vBkzlV6zivkBss1rjSaqCw==
-----END SSH SIGNATURE-----
"""
FINGERPRINT = "SHA256:wdTBdTdo2TGC6VqUUL1usQbKGWT/wF2dZVDNbfxjOkw"
KEY = sshsig.parse_signature(REAL, "x").public_key


def field(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def blob(
    key: bytes = KEY,
    namespace: bytes = b"trailcurrent-deployment",
    reserved: bytes = b"",
    algorithm: bytes = b"sha512",
    *,
    begin: bytes = b"SSHSIG\0\0\0\1",
    end: bytes = b"",
) -> bytes:
    return begin + b"".join(map(field, (key, namespace, reserved, algorithm, b"signature"))) + end


def refusal(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        sshsig.parse_signature(data, "trailcurrent-deployment-1.2.0.zip")
    assert caught.value.code == "signature_invalid"
    assert "trailcurrent-deployment-1.2.0.zip" in str(caught.value)
    return str(caught.value)


def test_real_signature_is_read() -> None:
    found = sshsig.parse_signature(REAL, "x")
    assert (found.key_type, found.namespace, found.hash_algorithm) == (
        "ssh-ed25519",
        "trailcurrent-deployment",
        "sha512",
    )
    assert found.canonical == REAL
    assert sshsig.fingerprint(found.public_key) == FINGERPRINT
    assert sshsig.parse_certificate(found.public_key) is None


def test_armour_has_full_lines_and_no_empty_one_at_any_length() -> None:
    for length in range(1, 300):
        lines = sshsig.armour(bytes(length)).splitlines()
        assert (lines[0], lines[-1]) == (b"-----BEGIN SSH SIGNATURE-----", b"-----END SSH SIGNATURE-----")
        assert all(len(line) == 70 for line in lines[1:-2])
        assert 1 <= len(lines[-2]) <= 70


@pytest.mark.parametrize("length", [1, 2, 3, *range(60, 120, 3), 119])
def test_armour_of_openssh_itself_is_canonical(tmp_path: pathlib.Path, length: int) -> None:
    """The last line is full at some of these lengths."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    done = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", "n" * length], input=b"x", capture_output=True, check=True
    )
    assert sshsig.parse_signature(done.stdout, "x").namespace == "n" * length


def test_bit_flipped_in_what_nobody_signs_is_refused() -> None:
    """What still passes differs in a part that ssh-keygen judges (links/test_signature.py flips those as well)."""
    content = base64.b64decode(b"".join(REAL.splitlines()[1:-1]))
    judged = {*range(14, 65), *range(69, 92), *range(len(content) - 83, len(content))}
    for bit in range(8 * len(content)):
        data = bytearray(content)
        data[bit // 8] ^= 1 << bit % 8
        if bit // 8 not in judged:
            refusal(sshsig.armour(bytes(data)))


def test_bit_flipped_in_the_armour_is_refused_or_is_its_canonical_form() -> None:
    for bit in range(8 * len(REAL)):
        data = bytearray(REAL)
        data[bit // 8] ^= 1 << bit % 8
        try:
            found = sshsig.parse_signature(bytes(data), "x")
        except InputError:
            continue
        content = base64.b64decode(b"".join(data.splitlines()[1:-1]))
        assert sshsig.armour(content) == bytes(data) == found.canonical


def test_signature_cut_at_any_byte_is_refused() -> None:
    for length in range(len(REAL)):
        refusal(REAL[:length])


@pytest.mark.parametrize(
    "data",
    [
        REAL + b"\n",
        REAL + b"junk",
        REAL + REAL,
        b"\n" + REAL,
        REAL.replace(b"\n", b"\r\n"),
        REAL.rstrip(b"\n"),
        REAL.replace(b"pe\na2", b"pea2"),
        REAL.replace(b"pe\na2", b"pe\n\na2"),
        REAL.replace(b"pe\na2", b"pe \na2"),
        REAL.replace(b"qCw==", b"qCx=="),
        REAL.replace(b"qCw==", b"qCw="),
        REAL.replace(b"-----END", b"Comment: x\n-----END"),
        REAL.replace(b"gxR2L", b"g\xffR2L"),
        sshsig.armour(b""),
        sshsig.BEGIN + sshsig.END,
        b"",
        REAL + b" " * 20_000,
        sshsig.armour(bytes(20_000)),
    ],
    ids=lambda data: f"{len(data)}-{data[-12:]!r}",
)
def test_other_form_of_a_signature_is_refused(data: bytes) -> None:
    assert data != REAL
    assert "sign it again" in refusal(data)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (blob(begin=b"SSHSIG\0\0\0\2"), "version 1"),
        (blob(begin=b"SSHSIH\0\0\0\1"), "version 1"),
        (blob(reserved=b"x"), "reserved"),
        (blob(end=b"\0"), "follows"),
        (blob(algorithm=b"md5"), "md5"),
        (blob(algorithm=b"sha512\n"), "no name"),
        (blob(namespace=b""), "no namespace"),
        (blob(namespace=b"a\x1b[2Jb"), "no namespace"),
        (blob(namespace=b"n" * 201), "no namespace"),
        (blob(key=b""), "too early"),
        (blob(key=field(b"\0")), "no name"),
        (blob()[:-3], "too early"),
        (b"SSHSIG\0\0\0\1\xff\xff\xff\xff", "too early"),
    ],
)
def test_armour_around_something_else_is_refused(content: bytes, reason: str) -> None:
    sentence = refusal(sshsig.armour(content))
    assert reason in sentence
    assert sentence.isprintable()


@given(st.binary(max_size=300))
def test_any_content_is_refused_or_comes_back_as_it_is(content: bytes) -> None:
    for data in (content, sshsig.armour(content), sshsig.armour(blob(key=field(b"x") + content))):
        try:
            found = sshsig.parse_signature(data, "x")
        except InputError:
            continue
        assert found.canonical == data


@given(st.binary(max_size=200), st.sampled_from(["ssh-ed25519", "ssh-rsa", "sk-ssh-ed25519", "none"]))
def test_certificate_of_any_content_is_read_or_none(content: bytes, kind: str) -> None:
    key = field((kind + sshsig.CERTIFICATE_SUFFIX).encode()) + content
    sshsig.parse_certificate(key)
    assert sshsig.fingerprint(key).startswith("SHA256:")


def test_certificate_says_who_when_and_by_whom(tmp_path: pathlib.Path) -> None:
    for kind in ("ed25519", "rsa", "ecdsa"):
        key = tmp_path / kind
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key], check=True)
        subprocess.run(
            [
                "ssh-keygen",
                "-q",
                "-s",
                tmp_path / "ed25519",
                "-I",
                "laptop",
                "-n",
                "a@x,b@x",
                "-V",
                "20260101:20270101",
                key.with_suffix(".pub"),
            ],
            env=os.environ | {"TZ": "UTC"},
            check=True,
        )
        blobs = [
            base64.b64decode(path.read_text().split()[1])
            for path in (key.with_suffix(".pub"), tmp_path / f"{kind}-cert.pub", tmp_path / "ed25519.pub")
        ]
        found = sshsig.parse_certificate(blobs[1])
        assert found == sshsig.Certificate("laptop", ("a@x", "b@x"), 1_767_225_600, 1_798_761_600, blobs[2])
        assert sshsig.fingerprint(blobs[1]) == sshsig.fingerprint(blobs[0])
        shown = subprocess.run(["ssh-keygen", "-l", "-f", key], capture_output=True, text=True, check=True)
        assert sshsig.fingerprint(blobs[0]) == shown.stdout.split()[1]
