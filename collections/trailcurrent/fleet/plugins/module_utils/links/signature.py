"""Signing a manifest and judging its signature by OpenSSH's own ``ssh-keygen`` (PROTOCOL.sshsig).

Every verdict is ``ssh-keygen``'s: nothing here computes or compares keys. What this file adds is a sentence that names
the key, the date and what to do. It runs without a terminal, without askpass and in UTC, so it never asks anybody.
"""

from __future__ import annotations

import base64
import collections.abc
import contextlib
import errno
import os
import pathlib
import re
import signal
import stat
import subprocess
import tempfile
import time
import typing as t

from ..errors import FleetError, InputError, LinkError, RefusedError
from ..formats.allowed_signers import Signer, parse_allowed_signers
from ..formats.sshsig import Certificate, SshSignature, fingerprint, parse_certificate, parse_signature
from ..text import printable

NAMESPACE: t.Final = "trailcurrent-deployment"
PROGRAM: t.Final = "ssh-keygen"
VERIFY_TIMEOUT: t.Final = 30.0  # s; it takes milliseconds, on a Pi that loads images some seconds
SIGN_TIMEOUT: t.Final = 120.0  # s; a hardware token waits for a touch
SIGNERS_LIMIT: t.Final = 256 * 1024  # bytes of allowed_signers; some hundreds of keys
_LATEST: t.Final = 253_402_300_799  # s since the epoch, the end of the year 9999: what `verify-time` can say
_ENVIRONMENT: t.Final = {"TZ": "UTC", "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}  # ssh(1), ENVIRONMENT
_WAITING: t.Final = "unlock the agent, or touch the token in time, and run it again"
_TOO_OLD: t.Final = ("unknown option", "illegal option", "invalid option", "usage:")
_PRIVATE: t.Final = b"-----BEGIN"  # of every private key that ssh-keygen reads
_SCRATCH_FILE: t.Final = re.compile(r"\S*/allowed_signers:")

Done = subprocess.CompletedProcess[bytes]


def sign(manifest: bytes, key: pathlib.Path) -> bytes:
    """The signature of ``manifest`` in its canonical form.

    :param key: a private key, or a public one (or certificate) whose private half is beside it or in ssh-agent
    :raises RefusedError: ``signing_failed``
    """
    path = _readable(key)
    with _scratch() as folder:
        message = folder / "manifest.json"
        message.write_bytes(manifest)
        try:
            done = _run(["-Y", "sign", "-f", str(path), "-n", NAMESPACE, str(message)], b"", SIGN_TIMEOUT, _WAITING)
        except _NoAnswerError as error:
            raise _not_signed(path, error.seen, error.remedy) from error
        made = message.with_name("manifest.json.sig")
        if done.returncode or not made.is_file():
            raise _why_not_signed(path, done)
        signature = made.read_bytes()
    check(manifest, signature)
    return signature


def public_key(key: pathlib.Path) -> bytes:
    """The public key (or certificate) that ``sign`` signs as, in SSH's own notation; nothing is asked or touched.

    :param key: as for ``sign``
    :raises RefusedError: ``signing_failed`` also where the public key beside a private one is another's
    """
    path = _readable(key)
    try:
        exported = _run(["-e", "-P", "", "-f", str(path)], b"", VERIFY_TIMEOUT, _WAITING)
        derived = _run(["-y", "-P", "", "-f", str(path)], b"", VERIFY_TIMEOUT, _WAITING)
    except _NoAnswerError as error:
        raise _not_signed(path, error.seen, error.remedy) from error
    if exported.returncode:
        raise _why_not_signed(path, exported)
    public = _decoded(exported.stdout)
    if not _is_private(path):
        return public
    if derived.returncode and b"passphrase" not in derived.stderr:
        raise _why_not_signed(path, derived)
    if not derived.returncode and _material(base64.b64decode(derived.stdout.split()[1])) not in public:
        raise _not_signed(
            path, "the public key beside it is another key's", f"run `ssh-keygen -y -f {path} >{path}.pub`"
        )
    return public


def _readable(key: pathlib.Path) -> pathlib.Path:
    path = key.absolute()
    if not os.access(path, os.R_OK):
        raise _not_signed(path, "there is no such file that this user can read", "correct `signing_key`")
    return path


def _decoded(exported: bytes) -> bytes:
    """What stands between the armour's lines and headers (RFC 4716, 3); only a header has a colon or a quote."""
    lines = [line for line in exported.split(b"\n") if not line.startswith(b"----") and not set(line) & set(b':"\\')]
    return base64.b64decode(b"".join(lines))


def _is_private(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_PRIVATE)) == _PRIVATE


def _material(public: bytes) -> bytes:
    """A public key without the name of its type: so it stands in a certificate of that key as well."""
    return public[4 + int.from_bytes(public[:4], "big") :]


def check(manifest: bytes, signature: bytes, subject: str = "the bundle") -> SshSignature:
    """Whether ``signature`` is one of ``manifest`` for our purpose: the mathematics alone, whoever signed.

    :raises InputError: ``signature_invalid`` where it is no signature in its canonical form
    :raises RefusedError: ``signature_invalid``, ``signature_namespace``
    :raises LinkError: ``requirement_unmet`` where ssh-keygen cannot be asked
    """
    found = parse_signature(signature, subject)
    if found.namespace != NAMESPACE:
        raise RefusedError(
            "signature_namespace",
            f"the signature of {subject}, by {_key(found)}, was made for {printable(found.namespace)!r}; sign it with"
            f" `-n {NAMESPACE}`",
            namespace=printable(found.namespace),
            fingerprint=fingerprint(found.public_key),
        )
    with _scratch() as folder:
        done = _check(folder, manifest, signature)
    if done.returncode:
        raise RefusedError(
            "signature_invalid",
            f"the signature of {subject}, by {_key(found)}, is not one of its manifest: ssh-keygen says"
            f" {_last_words(done)!r}; copy or download the bundle again, or sign it again if it is yours",
            fingerprint=fingerprint(found.public_key),
        )
    return found


def verify(
    manifest: bytes, signature: bytes, allowed_signers: pathlib.Path, at: int, subject: str = "the bundle"
) -> str:
    """The principal of ``allowed_signers`` who signed ``manifest``, judged as if it was the time ``at``.

    :param at: s since the epoch (bundle/verify/trust.py says which)
    :raises InputError: as ``check``; ``signers_missing``, ``invalid_signers``
    :raises RefusedError: as ``check``; ``signer_unknown``, ``signer_expired``, ``clock_wrong``
    :raises LinkError: as ``check``
    """
    found = check(manifest, signature, subject)
    signers = read_signers(allowed_signers)
    moment = min(max(at, 1), _LATEST)  # 0 means now to ssh-keygen
    with _scratch() as folder:
        (folder / "signature").write_bytes(signature)
        (folder / "allowed_signers").write_bytes(signers)
        when = ["-O", "verify-time=" + time.strftime("%Y%m%d%H%M%S", time.gmtime(moment))]
        files = ["-s", str(folder / "signature"), "-f", str(folder / "allowed_signers")]
        asked = _ask(["-Y", "find-principals", *files, *when], b"")
        for principal in _candidates(asked, signers, found):
            done = _ask(["-Y", "verify", "-n", NAMESPACE, "-I", principal, *files, *when], manifest)
            if not done.returncode:
                return printable(principal)
            asked = done
    raise _why_refused(found, _parsed(signers, allowed_signers), moment, _Words(subject, allowed_signers, asked))


def read_signers(path: pathlib.Path) -> bytes:
    """The bytes of an ``allowed_signers`` file, which must be a file of its own: the root of all trust is no link.

    :raises InputError: ``signers_missing``, ``invalid_signers``
    """
    try:
        content = _read_file(path)
    except FileNotFoundError:
        raise InputError(
            "signers_missing",
            f"there is no {path} to judge the signature by; write it by set-up, or name yours as `allowed_signers`",
        ) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _unusable(path, "it is a symbolic link", "name the file itself") from error
        raise _unusable(path, os.strerror(error.errno or 0), "make it a file that this user can read") from error
    if len(content) > SIGNERS_LIMIT:
        raise _unusable(path, f"it has more than {SIGNERS_LIMIT} bytes", "name a list of keys")
    return content


def _read_file(path: pathlib.Path) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _unusable(path, "it is no regular file", "name the file itself")
        with open(handle, "rb", closefd=False) as file:
            return file.read(SIGNERS_LIMIT + 1)
    finally:
        os.close(handle)


def _candidates(asked: Done, signers: bytes, found: SshSignature) -> list[str]:
    """Names to ask ssh-keygen about: its own, and those of later lines, since it stops at a key's first line."""
    names = asked.stdout.decode("utf-8", "surrogateescape").splitlines() if not asked.returncode else []
    certificate = parse_certificate(found.public_key)
    with contextlib.suppress(InputError):  # what cannot be read matters once nothing is found
        for signer in parse_allowed_signers(signers.decode("utf-8", "surrogateescape"), "allowed_signers"):
            if _covers(signer, found, certificate):
                names += certificate.principals if certificate else signer.principals
    return [name for name in dict.fromkeys(names) if name and not name.startswith("!") and "\0" not in name]


def _covers(signer: Signer, found: SshSignature, certificate: Certificate | None) -> bool:
    if signer.cert_authority:
        return certificate is not None and signer.public_key == certificate.authority
    return signer.public_key == found.public_key


def _parsed(signers: bytes, path: pathlib.Path) -> list[Signer]:
    return parse_allowed_signers(signers.decode("utf-8", "replace"), str(path))


class _Words(t.NamedTuple):
    """What every refusal says besides its reason."""

    subject: str
    path: pathlib.Path
    done: Done


def _why_refused(found: SshSignature, signers: list[Signer], at: int, words: _Words) -> FleetError:
    """The reason of a refusal that ssh-keygen gave already: of all lines with the key, the one nearest to trust."""
    certificate = parse_certificate(found.public_key)
    lines = [signer for signer in signers if _covers(signer, found, certificate)]
    if certificate:
        lines = [line for line in lines if any(map(line.names, certificate.principals))]
    if not lines:
        return _unknown(found, certificate, signers, words)
    allowed = [line for line in lines if line.allows(NAMESPACE)]
    if not allowed:
        return _other_purpose(found, lines[0], words)
    ends = [(end, line) for line in allowed if (end := _end(line, certificate)) is not None and end < at]
    if ends:
        return _expired(found, *max(ends, key=lambda pair: pair[0]), at, words)
    starts = [(start, line) for line in allowed if (start := _start(line, certificate)) is not None and start > at]
    if starts:
        return _not_yet(found, *min(starts, key=lambda pair: pair[0]), at, words)
    return RefusedError(
        "signature_invalid",
        f"the signature of {words.subject}, by {_who(found, allowed[0], words)}, is not accepted: ssh-keygen says"
        f" {_last_words(words.done)!r}; correct that line by set-up, or sign with another key",
        fingerprint=fingerprint(found.public_key),
    )


def _end(line: Signer, certificate: Certificate | None) -> int | None:
    """The last second in which the line and the certificate hold; a certificate's own end is not part of its time."""
    own = certificate.valid_before - 1 if certificate and certificate.valid_before is not None else None
    return min((end for end in (line.valid_before, own) if end is not None), default=None)


def _start(line: Signer, certificate: Certificate | None) -> int | None:
    own = certificate.valid_after if certificate else None
    return max((start for start in (line.valid_after, own) if start is not None), default=None)


def _unknown(
    found: SshSignature, certificate: Certificate | None, signers: list[Signer], words: _Words
) -> RefusedError:
    names = dict.fromkeys(name for signer in signers for name in signer.principals)
    known = printable(", ".join(names)) or "nobody"
    by = _key(found)
    if certificate:
        of = printable(", ".join(certificate.principals)) or "nobody"
        by += f", a certificate for {of} from the authority {fingerprint(certificate.authority)}"
    return RefusedError(
        "signer_unknown",
        f"{words.subject} is signed by {by}, which {words.path} does not trust (it knows {known}); compare the"
        " fingerprint with its owner's and add the key by set-up, or take a bundle that a known key signed",
        fingerprint=fingerprint(found.public_key),
    )


def _other_purpose(found: SshSignature, line: Signer, words: _Words) -> RefusedError:
    allowed = printable(",".join(line.namespaces or ()))
    return RefusedError(
        "signature_namespace",
        f"{words.subject} is signed by {_who(found, line, words)}, which may sign for {allowed!r} only; allow"
        f' namespaces="{NAMESPACE}" there by set-up, or sign with a key for deployments',
        fingerprint=fingerprint(found.public_key),
        principal=_principal(line),
    )


def _expired(found: SshSignature, end: int, line: Signer, at: int, words: _Words) -> RefusedError:
    return RefusedError(
        "signer_expired",
        f"{words.subject} is signed by {_who(found, line, words)}, whose time ended at {when(end)}, and it is judged"
        f" as of {when(at)}; extend its time or add the new key by set-up, and have it signed with a key that is valid",
        fingerprint=fingerprint(found.public_key),
        principal=_principal(line),
        valid_before=end,
        judged_at=at,
    )


def _not_yet(found: SshSignature, start: int, line: Signer, at: int, words: _Words) -> RefusedError:
    return RefusedError(
        "clock_wrong",
        f"{words.subject} is signed by {_who(found, line, words)}, whose time begins at {when(start)}, and this"
        f" machine takes it for {when(at)}; set the clock, then run it again",
        fingerprint=fingerprint(found.public_key),
        principal=_principal(line),
        valid_after=start,
        judged_at=at,
    )


def when(epoch: int) -> str:
    """A time for people, in UTC as it stands in ``allowed_signers``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(max(epoch, 0), _LATEST)))


def _key(found: SshSignature) -> str:
    return f"the {printable(found.key_type)} key {fingerprint(found.public_key)}"


def _principal(line: Signer) -> str:
    return printable(",".join(line.principals))


def _who(found: SshSignature, line: Signer, words: _Words) -> str:
    comment = f", {line.comment}" if line.comment else ""
    return f"{_principal(line)} ({_key(found)}{comment}; line {line.line} of {words.path})"


def _unusable(path: pathlib.Path, seen: str, remedy: str) -> InputError:
    return InputError("invalid_signers", f"{path} cannot be used as `allowed_signers`: {seen}; {remedy}")


def _not_signed(path: pathlib.Path, seen: str, remedy: str) -> RefusedError:
    return RefusedError("signing_failed", f"the manifest cannot be signed with {path}: {seen}; {remedy}")


def _why_not_signed(path: pathlib.Path, done: Done) -> RefusedError:
    said = done.stderr.decode("utf-8", "replace").lower()
    if "passphrase" in said:
        return _not_signed(path, "it has a passphrase, and nobody is asked here", f"run `ssh-add {path}` first")
    if "unprotected" in said:
        return _not_signed(path, "others can read it", f"run `chmod 600 {path}`")
    if "no private key found" in said:
        remedy = "run `ssh-add` with the private key, and see that SSH_AUTH_SOCK reaches here, or name the private key"
        return _not_signed(path, "its private half is neither beside it nor in ssh-agent", remedy)
    return _not_signed(path, f"ssh-keygen says {_last_words(done)!r}", "name a private key, or one in ssh-agent")


def _last_words(done: Done) -> str:
    """The reason stands in ssh-keygen's first line; the last one says no more than that it failed."""
    lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    if not lines:
        return f"nothing (status {done.returncode})"
    return printable(_SCRATCH_FILE.sub("line ", lines[0]))


def _check(folder: pathlib.Path, manifest: bytes, signature: bytes) -> Done:
    file = folder / "signature"
    file.write_bytes(signature)
    return _ask(["-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(file)], manifest)


@contextlib.contextmanager
def _scratch() -> collections.abc.Iterator[pathlib.Path]:
    """A folder that this user alone can see, gone after the block."""
    try:
        with tempfile.TemporaryDirectory(prefix="trailcurrent-signature-") as name:
            yield pathlib.Path(name)
    except OSError as error:
        raise LinkError(
            "state_unwritable",
            f"could not write the scratch files of a signature in {tempfile.gettempdir()}: {error.strerror or error};"
            " free space there, or set TMPDIR, and run it again",
        ) from error


class _NoAnswerError(Exception):
    """ssh-keygen could not be asked: what was seen, and what to do."""

    def __init__(self, seen: str, remedy: str) -> None:
        super().__init__(seen)
        self.seen = seen
        self.remedy = remedy


def _ask(arguments: list[str], message: bytes) -> Done:
    """A verdict of ssh-keygen's, its status being the caller's to read. :raises LinkError: ``requirement_unmet``"""
    try:
        return _run(arguments, message, VERIFY_TIMEOUT, "run it again")
    except _NoAnswerError as error:
        raise LinkError("requirement_unmet", f"the signature cannot be judged: {error.seen}; {error.remedy}") from error


def _run(arguments: list[str], message: bytes, timeout: float, waiting: str) -> Done:
    """Run ssh-keygen to its end, in a session of its own, so that there is no terminal to ask at."""
    try:
        child = subprocess.Popen(
            [PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=os.environ | _ENVIRONMENT,
        )
    except OSError as error:
        raise _NoAnswerError(f"`{PROGRAM}` cannot be run ({error.strerror})", "install openssh-client") from error
    with child:
        try:
            output, said = child.communicate(message, timeout)
        except subprocess.TimeoutExpired:
            raise _NoAnswerError(f"`{PROGRAM}` did not end within {timeout:g} s", waiting) from None
        finally:
            if child.returncode is None:  # with its helpers, which hold the pipes open
                os.killpg(child.pid, signal.SIGKILL)
    if child.returncode and said.decode("utf-8", "replace").lower().startswith(_TOO_OLD):
        raise _NoAnswerError(f"`{PROGRAM}` says {printable(said)!r}", "update openssh-client to 8.9 or later")
    return Done(child.args, child.returncode, output, said)
