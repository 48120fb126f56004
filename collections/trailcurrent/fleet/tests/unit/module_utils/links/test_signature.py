"""Signing and judging with the real ssh-keygen: nothing untrue passes, nobody is asked, each refusal has its reason."""

from __future__ import annotations

import base64
import collections.abc
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import sshsig
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import signature

MANIFEST = b'{"version": "1.2.0"}\n'
OTHER = b'{"version": "1.2.1"}\n'
NOW = 1_793_491_200  # 2026-11-01
YEAR = 365 * 86_400
KINDS = (("ed25519", ()), ("rsa", ("-b", "2048")), ("ecdsa", ("-b", "256")), ("ecdsa", ("-b", "521")))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the keys release, next, foreign and locked (passphrase "secret")."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("release", "next", "foreign", "authority", "locked"):
        make_key(folder / name, passphrase="secret" if name == "locked" else "")
    return folder


@pytest.fixture(scope="module")
def signed(keys: pathlib.Path) -> bytes:
    """What release signed."""
    return signature.sign(MANIFEST, keys / "release")


@pytest.fixture(autouse=True)
def no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def make_key(path: pathlib.Path, kind: str = "ed25519", options: tuple[str, ...] = (), passphrase: str = "") -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, *options, "-N", passphrase, "-C", f"{path.name} laptop", "-f", path],
        check=True,
    )


def public(keys: pathlib.Path, name: str) -> str:
    return " ".join((keys / f"{name}.pub").read_text().split()[:2])


def shown(keys: pathlib.Path, name: str) -> str:
    return subprocess.run(
        ["ssh-keygen", "-l", "-f", keys / f"{name}.pub"], capture_output=True, text=True, check=True
    ).stdout.split()[1]


@pytest.fixture
def trust(tmp_path: pathlib.Path) -> collections.abc.Callable[..., pathlib.Path]:
    """Writes lines to an allowed_signers file."""

    def write(*lines: str) -> pathlib.Path:
        path = tmp_path / "allowed_signers"
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return write


@contextlib.contextmanager
def failing(code: str, *parts: str) -> collections.abc.Iterator[None]:
    """The block fails with that code, in a sentence with all those parts."""
    with pytest.raises(FleetError) as caught:
        yield
    assert caught.value.code == code, str(caught.value)
    for part in parts:
        assert part in str(caught.value)
    assert str(caught.value).isprintable()


def wait_for_listener(path: pathlib.Path) -> None:
    end = time.monotonic() + 10
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                return probe.connect(str(path))
            except OSError:
                if time.monotonic() > end:
                    raise
        time.sleep(0.01)


@contextlib.contextmanager
def agent() -> collections.abc.Iterator[str]:
    """A real ssh-agent, on a socket of its own in a folder whose name is short enough for one."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "agent"
        with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL) as process:
            try:
                wait_for_listener(path)
                yield str(path)
            finally:
                process.terminate()


def is_gone(pid: str) -> bool:
    """Whether a process that was killed has ended, be it that nobody has taken note yet."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


# signing


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=str)
def test_every_kind_of_key_signs_and_is_trusted(tmp_path: pathlib.Path, trust, kind: str, options) -> None:
    make_key(tmp_path / "key", kind, options)
    made = signature.sign(MANIFEST, tmp_path / "key")
    assert signature.check(MANIFEST, made).namespace == "trailcurrent-deployment"
    assert sshsig.parse_signature(made, "x").canonical == made
    assert signature.verify(MANIFEST, made, trust(f"a@x {public(tmp_path, 'key')}"), NOW) == "a@x"


def test_signature_is_accepted_by_hand(tmp_path: pathlib.Path, keys, signed: bytes, trust) -> None:
    (tmp_path / "manifest.json.sig").write_bytes(signed)
    path = trust(f"a@x {public(keys, 'release')}")
    command = ["ssh-keygen", "-Y", "verify", "-f", path, "-I", "a@x", "-n", "trailcurrent-deployment"]
    done = subprocess.run(
        [*command, "-s", tmp_path / "manifest.json.sig"], input=MANIFEST, capture_output=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith(b'Good "trailcurrent-deployment" signature for a@x')


def test_agent_signs_for_a_public_key_alone(tmp_path: pathlib.Path, keys, trust, monkeypatch) -> None:
    alone = shutil.copy(keys / "release.pub", tmp_path / "token.pub")
    with failing("signing_failed", "token.pub", "ssh-add"):
        signature.sign(MANIFEST, alone)
    with agent() as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        with failing("signing_failed", "token.pub", "neither beside it nor in ssh-agent"):
            signature.sign(MANIFEST, alone)
        subprocess.run(["ssh-add", "-q", keys / "release"], check=True)
        made = signature.sign(MANIFEST, alone)
    assert signature.verify(MANIFEST, made, trust(f"a@x {public(keys, 'release')}"), NOW) == "a@x"
    with failing("signing_failed", "ssh-add"):  # SSH_AUTH_SOCK names an agent that is gone
        signature.sign(MANIFEST, alone)


def test_agent_signs_for_a_key_with_a_passphrase(tmp_path: pathlib.Path, keys, monkeypatch) -> None:
    ask = tmp_path / "ask"
    ask.write_text("#!/bin/sh\necho secret\n")
    ask.chmod(0o755)
    with agent() as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        asking = {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
        subprocess.run(["ssh-add", "-q", keys / "locked"], check=True, env=os.environ | asking)
        signature.check(MANIFEST, signature.sign(MANIFEST, keys / "locked"))
        subprocess.run(["ssh-add", "-q", "-D"], check=True)
        with failing("signing_failed", "ssh-add", "passphrase"):
            signature.sign(MANIFEST, keys / "locked")


def test_nobody_is_asked_for_a_passphrase(tmp_path: pathlib.Path, keys, monkeypatch) -> None:
    """At a real terminal, with an askpass that would answer."""
    ask = tmp_path / "ask"
    ask.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\necho secret\n")
    ask.chmod(0o755)
    code = (
        "import pathlib, sys\n"
        "from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError\n"
        "from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import signature\n"
        "try:\n"
        "    signature.sign(b'secret', pathlib.Path(sys.argv[1]))\n"
        "except FleetError as error:\n"
        "    print(error.code, error)\n"
    )
    terminal = "import pty, sys\nsys.exit(pty.spawn(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", terminal, sys.executable, "-c", code, keys / "locked"],
        env=os.environ
        | {"PYTHONPATH": str(pathlib.Path("collections").resolve()), "SSH_ASKPASS": str(ask), "DISPLAY": ":0"}
        | {"SSH_ASKPASS_REQUIRE": "prefer"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.startswith(b"signing_failed the manifest cannot be signed with ")
    assert done.stdout.count(b"\n") == 1  # and no prompt before it
    assert not (tmp_path / "asked").exists()


def test_agent_that_never_answers_ends_by_time_out(keys, monkeypatch) -> None:
    monkeypatch.setattr(signature, "SIGN_TIMEOUT", 0.5)
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{folder}/agent")
        silent.listen()
        monkeypatch.setenv("SSH_AUTH_SOCK", f"{folder}/agent")
        begun = time.monotonic()
        with failing("signing_failed", "did not end within 0.5 s"):
            signature.sign(MANIFEST, keys / "release")
        assert time.monotonic() - begun < 10


def test_key_that_cannot_be_used_is_named_with_the_reason(tmp_path: pathlib.Path, keys) -> None:
    with failing("signing_failed", str(tmp_path / "none"), "no such file"):
        signature.sign(MANIFEST, tmp_path / "none")
    junk = tmp_path / "-junk"
    junk.write_text("this is no key")
    with failing("signing_failed", str(junk), "ssh-keygen says"):
        signature.sign(MANIFEST, junk)
    with failing("signing_failed", str(tmp_path), "ssh-keygen says"):
        signature.sign(MANIFEST, tmp_path)
    open_key = shutil.copy(keys / "release", tmp_path / "open")
    open_key.chmod(0o644)
    with failing("signing_failed", "others can read it", f"chmod 600 {open_key}"):
        signature.sign(MANIFEST, open_key)


# the key that will have signed, before anything is signed


def wire(path: pathlib.Path) -> bytes:
    return base64.b64decode(path.read_text().split()[1])


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_key_is_known_from_the_private_file_alone(tmp_path: pathlib.Path, kind: str) -> None:
    make_key(tmp_path / "key", kind)
    expected = wire(tmp_path / "key.pub")
    assert signature.public_key(tmp_path / "key") == expected
    assert signature.public_key(tmp_path / "key.pub") == expected
    (tmp_path / "key.pub").unlink()
    assert signature.public_key(tmp_path / "key") == expected
    assert signature.check(MANIFEST, signature.sign(MANIFEST, tmp_path / "key")).public_key == expected


@pytest.mark.parametrize("passphrase", ["", "secret"])
def test_key_in_the_old_notation_is_known(tmp_path: pathlib.Path, passphrase: str) -> None:
    make_key(tmp_path / "key", "rsa", ("-m", "PEM"), passphrase)
    assert signature.public_key(tmp_path / "key") == wire(tmp_path / "key.pub")
    (tmp_path / "key.pub").unlink()
    if passphrase:
        with failing("signing_failed", "has a passphrase", "ssh-add"):
            signature.public_key(tmp_path / "key")
    else:
        signature.public_key(tmp_path / "key")


def test_key_with_a_passphrase_is_known_and_nobody_is_asked(tmp_path: pathlib.Path, monkeypatch) -> None:
    asked = tmp_path / "asked"
    askpass = tmp_path / "askpass"
    askpass.write_text(f"#!/bin/sh\ntouch {asked}\necho secret\n")
    askpass.chmod(0o755)
    monkeypatch.setenv("SSH_ASKPASS", str(askpass))
    monkeypatch.setenv("DISPLAY", ":0")
    make_key(tmp_path / "key", passphrase="secret")
    expected = wire(tmp_path / "key.pub")
    assert signature.public_key(tmp_path / "key") == expected
    (tmp_path / "key.pub").unlink()
    assert signature.public_key(tmp_path / "key") == expected
    assert not asked.exists()


def test_public_key_of_another_beside_the_private_one_is_refused(tmp_path: pathlib.Path, keys) -> None:
    make_key(tmp_path / "key")
    shutil.copy(keys / "release.pub", tmp_path / "key.pub")
    with failing("signing_failed", "another key's", f"ssh-keygen -y -f {tmp_path / 'key'} >{tmp_path / 'key.pub'}"):
        signature.public_key(tmp_path / "key")


def test_certificate_is_known_as_what_signs(tmp_path: pathlib.Path, keys) -> None:
    make_key(tmp_path / "key")
    command = ["ssh-keygen", "-q", "-s", keys / "release", "-I", "x", "-n", "a@x", tmp_path / "key.pub"]
    subprocess.run(command, check=True, capture_output=True)
    certificate = tmp_path / "key-cert.pub"
    assert signature.public_key(certificate) == wire(certificate)
    shutil.copy(certificate, tmp_path / "key.pub")
    assert signature.public_key(tmp_path / "key") == wire(certificate)
    make_key(tmp_path / "other")
    shutil.copy(certificate, tmp_path / "other.pub")
    with failing("signing_failed", "another key's"):
        signature.public_key(tmp_path / "other")


def test_key_that_cannot_be_known_is_named_with_the_reason(tmp_path: pathlib.Path, keys) -> None:
    (tmp_path / "junk").write_text("this is no key")
    open_key = shutil.copy(keys / "release", tmp_path / "open")
    shutil.copy(keys / "release.pub", tmp_path / "open.pub")
    open_key.chmod(0o644)
    for name, seen in (("none", "no such file"), ("junk", str(tmp_path / "junk")), ("open", "chmod 600")):
        with failing("signing_failed", seen):
            signature.public_key(tmp_path / name)
    with failing("signing_failed"):
        signature.public_key(tmp_path)


# the mathematics


def test_signature_of_another_manifest_is_refused(keys, signed: bytes, trust) -> None:
    path = trust(f"a@x {public(keys, 'release')}")
    for data in (OTHER, b"", MANIFEST + b" ", MANIFEST[:-1]):
        with failing("signature_invalid", "demo.zip", shown(keys, "release"), "incorrect signature", "again"):
            signature.check(data, signed, "demo.zip")
        with failing("signature_invalid"):
            signature.verify(data, signed, path, NOW)


def test_signature_with_any_byte_flipped_is_refused(keys, signed: bytes, trust) -> None:
    """Those whose form is still canonical are left to ssh-keygen."""
    path = trust(f"a@x {public(keys, 'release')}")
    for place in range(len(signed)):
        data = bytearray(signed)
        data[place] ^= 1 + place % 3
        with pytest.raises(FleetError) as caught:
            signature.verify(MANIFEST, bytes(data), path, NOW)
        assert caught.value.code in {"signature_invalid", "signature_namespace"}, place


def test_junk_after_the_armour_that_openssh_accepts_is_refused(tmp_path: pathlib.Path, signed: bytes) -> None:
    file = tmp_path / "sig"
    file.write_bytes(signed + b"junk\n")
    command = ["ssh-keygen", "-Y", "check-novalidate", "-n", signature.NAMESPACE, "-s", file]
    assert subprocess.run(command, input=MANIFEST, capture_output=True, check=False).returncode == 0
    with failing("signature_invalid", "demo.zip"):
        signature.check(MANIFEST, file.read_bytes(), "demo.zip")


def test_signature_for_another_purpose_is_refused(keys, trust) -> None:
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", keys / "release"]
    made = subprocess.run(command, input=MANIFEST, capture_output=True, check=True).stdout
    with failing("signature_namespace", "'file'", "-n trailcurrent-deployment", shown(keys, "release")):
        signature.verify(MANIFEST, made, trust(f"a@x {public(keys, 'release')}"), NOW)


# who may sign


def test_unknown_key_is_named_with_those_that_are_known(keys, signed: bytes, trust) -> None:
    path = trust(f"next@x {public(keys, 'next')}")
    with failing("signer_unknown", shown(keys, "release"), str(path), "next@x", "set-up"):
        signature.verify(MANIFEST, signed, path, NOW)
    with failing("signer_unknown", "it knows nobody"):
        signature.verify(MANIFEST, signed, trust("# nobody yet"), NOW)


def test_one_of_several_keys_is_enough_to_rotate_them(keys, signed: bytes, trust) -> None:
    path = trust(
        f'old@x valid-before="20260101" {public(keys, "release")}',
        f"next@x {public(keys, 'next')}",
        f'again@x namespaces="trailcurrent-*" {public(keys, "release")}',
    )
    assert signature.verify(MANIFEST, signed, path, NOW) == "again@x"
    assert signature.verify(MANIFEST, signature.sign(MANIFEST, keys / "next"), path, NOW) == "next@x"


def test_line_for_another_purpose_hides_no_later_one(keys, signed: bytes, trust) -> None:
    """ssh-keygen's own search for the name stops at the first line with the key, whatever that may sign."""
    line = f"{public(keys, 'release')}"
    path = trust(f'mail@x namespaces="email" {line}', f"a@x,b@x {line}")
    assert signature.verify(MANIFEST, signed, path, NOW) == "a@x"
    path = trust(f'mail@x namespaces="email,file" {line} Jo')
    with failing("signature_namespace", "mail@x", "email,file", "line 1", "Jo", shown(keys, "release")):
        signature.verify(MANIFEST, signed, path, NOW)


def test_pattern_and_quoted_name_are_names_too(keys, signed: bytes, trust) -> None:
    assert signature.verify(MANIFEST, signed, trust(f"*@x {public(keys, 'release')}"), NOW) == "*@x"
    assert signature.verify(MANIFEST, signed, trust(f'"a b" {public(keys, "release")}'), NOW) == "a b"
    assert signature.verify(MANIFEST, signed, trust(f"-I {public(keys, 'release')}"), NOW) == "-I"


def test_expired_key_is_named_with_the_date(keys, signed: bytes, trust) -> None:
    path = trust(f'a@x valid-before="20261101120000Z" {public(keys, "release")} release laptop')
    for at in (NOW, NOW + 43_200, 0, -1, 1):
        assert signature.verify(MANIFEST, signed, path, at) == "a@x"
    parts = ("demo.zip", "a@x", shown(keys, "release"), "release laptop", "2026-11-01T12:00:00Z", "add the new key")
    for at in (NOW + 43_201, NOW + YEAR, 1 << 60):
        with failing("signer_expired", *parts):
            signature.verify(MANIFEST, signed, path, at, "demo.zip")


def test_key_that_is_not_valid_yet_is_a_problem_of_the_clock(keys, signed: bytes, trust) -> None:
    path = trust(f'a@x valid-after="20261101" {public(keys, "release")}')
    assert signature.verify(MANIFEST, signed, path, NOW) == "a@x"
    with failing("clock_wrong", "a@x", "2026-11-01T00:00:00Z", "2026-10-31T23:59:59Z", "set the clock"):
        signature.verify(MANIFEST, signed, path, NOW - 1)
    with failing("clock_wrong", "1970-01-01T00:00:0"):
        signature.verify(MANIFEST, signed, path, 0)


def test_times_are_read_in_utc_whatever_the_zone(keys, signed: bytes, trust, monkeypatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    for end in ("20261101", "20261101000000Z"):
        path = trust(f'a@x valid-before="{end}" {public(keys, "release")}')
        assert signature.verify(MANIFEST, signed, path, NOW) == "a@x"
        with failing("signer_expired", "2026-11-01T00:00:00Z"):
            signature.verify(MANIFEST, signed, path, NOW + 1)


# certificates


def certify(keys: pathlib.Path, folder: pathlib.Path, names: str = "rel@x") -> bytes:
    """What a key signed that the authority vouches for during 2026."""
    shutil.copy(keys / "next", folder / "next")
    shutil.copy(keys / "next.pub", folder / "next.pub")
    command = ["ssh-keygen", "-q", "-s", keys / "authority", "-I", "id", "-n", names, "-V", "20260101:20270101"]
    subprocess.run([*command, folder / "next.pub"], check=True, env=os.environ | {"TZ": "UTC"})
    return signature.sign(MANIFEST, folder / "next-cert.pub")


def test_certificate_of_a_trusted_authority_signs(tmp_path: pathlib.Path, keys, trust) -> None:
    made = certify(keys, tmp_path)
    authority = public(keys, "authority")
    for line in (f"*@x cert-authority {authority}", f'rel@x cert-authority,namespaces="trail*" {authority}'):
        assert signature.verify(MANIFEST, made, trust(line), NOW) == "rel@x"
    path = trust(f'a@x namespaces="file",cert-authority {authority}', f"*@x cert-authority {authority}")
    assert signature.verify(MANIFEST, made, path, NOW) == "rel@x"


def test_certificate_is_refused_with_its_own_reason(tmp_path: pathlib.Path, keys, trust) -> None:
    made = certify(keys, tmp_path)
    authority = public(keys, "authority")
    with failing("signer_unknown", shown(keys, "next"), shown(keys, "authority"), "rel@x"):
        signature.verify(MANIFEST, made, trust(f"*@y cert-authority {authority}"), NOW)
    with failing("signer_unknown"):
        signature.verify(MANIFEST, made, trust(f"*@x {authority}", f"*@x {public(keys, 'next')}"), NOW)
    path = trust(f"*@x cert-authority {authority}")
    with failing("signer_expired", "2026-12-31T23:59:59Z"):
        signature.verify(MANIFEST, made, path, NOW + YEAR)
    with failing("clock_wrong", "2026-01-01T00:00:00Z"):
        signature.verify(MANIFEST, made, path, NOW - YEAR)
    path = trust(f'*@x cert-authority,valid-before="20260601" {authority}')
    with failing("signer_expired", "2026-06-01T00:00:00Z"):
        signature.verify(MANIFEST, made, path, NOW)


def test_authority_signs_nothing_with_its_own_key(keys, trust) -> None:
    made = signature.sign(MANIFEST, keys / "authority")
    with failing("signer_unknown"):
        signature.verify(MANIFEST, made, trust(f"*@x cert-authority {public(keys, 'authority')}"), NOW)


# the file of those who are trusted


def test_line_that_cannot_be_read_matters_only_where_no_other_helps(keys, signed: bytes, trust) -> None:
    good = f"a@x {public(keys, 'release')}"
    assert signature.verify(MANIFEST, signed, trust("garbage", good), NOW) == "a@x"
    assert signature.verify(MANIFEST, signed, trust('a@x later-option="1" ssh-x AAAA', good), NOW) == "a@x"
    path = trust(f"b@x {public(keys, 'next')}", f"a@x valid-before=tomorrow {public(keys, 'release')}")
    with failing("invalid_signers", f"line 2 of {path}", "valid-before"):
        signature.verify(MANIFEST, signed, path, NOW)


def test_trusted_signers_that_are_no_readable_file_are_refused(tmp_path: pathlib.Path, keys, signed, trust) -> None:
    real = trust(f"a@x {public(keys, 'release')}")
    link, pipe, large, folder = (tmp_path / name for name in ("link", "pipe", "large", "folder"))
    link.symlink_to(real)
    os.mkfifo(pipe)
    large.write_text("#" * (signature.SIGNERS_LIMIT + 1))
    folder.mkdir()
    for path, seen in ((link, "symbolic link"), (pipe, "no regular"), (folder, "no regular"), (large, "more than")):
        with failing("invalid_signers", str(path), seen):
            signature.verify(MANIFEST, signed, path, NOW)
    with failing("invalid_signers", "Not a directory"):
        signature.verify(MANIFEST, signed, real / "x", NOW)
    with failing("signers_missing", str(tmp_path / "none"), "set-up"):
        signature.verify(MANIFEST, signed, tmp_path / "none", NOW)


def test_file_of_any_bytes_gives_a_sentence(tmp_path: pathlib.Path, keys, signed: bytes) -> None:
    path = tmp_path / "allowed_signers"
    for content in (b"\xff\xfe\0\0", b"a\0b " + public(keys, "release").encode(), b'"', b"!a@x " * 3, b"\r\n\t#"):
        path.write_bytes(content)
        with pytest.raises(FleetError) as caught:
            signature.verify(MANIFEST, signed, path, NOW)
        assert caught.value.code in {"invalid_signers", "signer_unknown"}


# where ssh-keygen cannot be asked


def test_missing_or_old_ssh_keygen_is_named(tmp_path: pathlib.Path, keys, signed: bytes, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with failing("requirement_unmet", "ssh-keygen", "install openssh-client"):
        signature.check(MANIFEST, signed)
    with failing("signing_failed", "ssh-keygen", "install openssh-client"):
        signature.sign(MANIFEST, keys / "release")
    old = tmp_path / "ssh-keygen"  # as OpenSSH 7.9 of Debian 10 answers
    old.write_text("#!/bin/sh\necho 'unknown option -- Y' >&2\necho 'usage: ssh-keygen [-q]' >&2\nexit 1\n")
    old.chmod(0o755)
    with failing("requirement_unmet", "unknown option", "update openssh-client"):
        signature.check(MANIFEST, signed)


def test_ssh_keygen_that_hangs_ends_with_its_helpers(tmp_path: pathlib.Path, keys, monkeypatch) -> None:
    """A token's helper, which holds the pipes open while it waits for a touch."""
    hanging = tmp_path / "ssh-keygen"
    hanging.write_text(f"#!/bin/sh\nsleep 61 &\necho $! > {tmp_path}/helper\nwait\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(signature, "SIGN_TIMEOUT", 0.5)
    begun = time.monotonic()
    with failing("signing_failed", "did not end within 0.5 s", "touch"):
        signature.sign(MANIFEST, keys / "release")
    assert time.monotonic() - begun < 10
    assert is_gone((tmp_path / "helper").read_text().strip())


def test_signature_that_came_out_wrong_is_not_given_away(tmp_path: pathlib.Path, keys, monkeypatch) -> None:
    faulty = tmp_path / "ssh-keygen"
    faulty.write_text(
        f'#!/bin/sh\n{shutil.which("ssh-keygen")} "$@" || exit\n[ "$2" != sign ] || echo >> "${{7}}.sig"\n'
    )
    faulty.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with failing("signature_invalid", "something follows its end"):
        signature.sign(MANIFEST, keys / "release")


def test_scratch_folder_that_cannot_be_made_is_named(tmp_path: pathlib.Path, signed: bytes, monkeypatch) -> None:
    monkeypatch.setattr(signature.tempfile, "tempdir", str(tmp_path / "none"))
    with failing("state_unwritable", str(tmp_path / "none"), "TMPDIR"):
        signature.check(MANIFEST, signed)


def test_nothing_is_left_in_the_scratch_folder(tmp_path: pathlib.Path, keys, monkeypatch, trust) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(signature.tempfile, "tempdir", str(scratch))
    made = signature.sign(MANIFEST, keys / "release")
    signature.verify(MANIFEST, made, trust(f"a@x {public(keys, 'release')}"), NOW)
    with failing("signature_invalid"):
        signature.check(OTHER, made)
    assert not list(scratch.iterdir())
