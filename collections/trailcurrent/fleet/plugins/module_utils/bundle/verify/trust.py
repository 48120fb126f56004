"""Whether a bundle is to be trusted: the rules, and the record of what this machine has verified.

- Trust never hangs on the clock alone: a Pi without a battery wakes up in 1970, and a key's time is judged at the
  latest of its clock, this collection's build date and the newest release that it has verified.
- One wrong date cannot lock a Pi: that newest date counts at most a day ahead of a clock that NTP has set.
- A release that was verified is not judged by time again: going back works after its key has expired. The key must be
  the one that signed it then, and still be trusted: taking a key out of the file takes its releases' trust away.
- Who is trusted stands in ``allowed_signers``, which set-up alone writes; nothing here takes it from a bundle.
- A verdict on a key is ssh-keygen's (links/signature.py). The record is written by whoever has checked every hash.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import hashlib
import json
import pathlib
import time
import typing as t

from ...errors import InputError, RefusedError
from ...formats.manifest import Manifest, is_whole, parse_release_version
from ...formats.sshsig import fingerprint
from ...journal import DIGEST, exclusive, write_atomically
from ...links import signature as openssh
from ...links.clock import BUILD_DATE, clock_is_synced
from ...text import printable

LEAD: t.Final = 86_400  # s; how far a release's date counts ahead of a clock that NTP has set
POLICIES: t.Final = ("required", "if_present")
VERIFIED_KEPT: t.Final = 200  # releases; some 50 KB, and years of them
RECORD_LIMIT: t.Final = 1024 * 1024  # bytes; far above what VERIFIED_KEPT entries take
FAR: t.Final = 1 << 40  # s since the epoch; what no clock says
LOCK_PATIENCE: t.Final = 5.0  # s; whoever holds the lock writes one small file

Clock = collections.abc.Callable[[], float]
Json = dict[str, t.Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """Why a manifest may be used.

    :param signed: whether it has a signature, which then is one of it
    :param principal: who of ``allowed_signers`` signed it; None where nobody judged that
    :param reason: one sentence
    :param fingerprint: of the key that signed it; None without a signature
    :param at: the time that the key was judged at, s since the epoch; 0 where nobody judged it
    """

    signed: bool
    principal: str | None
    reason: str
    fingerprint: str | None = None
    at: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Verified:
    """One release that this machine has verified whole; times in s since the epoch, ``at`` that of its judgement."""

    version: str
    released: int
    principal: str
    fingerprint: str
    at: int


def judged_time(clock: float, clock_is_synced: bool, newest_released: int) -> int:
    """When a key's time is judged at, in s since the epoch: the latest of the three that can be believed."""
    if clock_is_synced:
        newest_released = min(newest_released, int(clock) + LEAD)
    return max(int(clock), BUILD_DATE, newest_released)


class TrustRecord:
    """What this machine has verified: ``<state_dir>/trust.json``, at most ``VERIFIED_KEPT`` releases.

    A record that cannot be read counts as empty, and ``damage`` says so: the next one replaces it.

    :param clock: s since the epoch; with ``synced``, what keeps one wrong date from moving ``newest_released``
    """

    def __init__(
        self, state_dir: pathlib.Path, clock: Clock = time.time, synced: t.Callable[[], bool] = clock_is_synced
    ) -> None:
        self._path = state_dir / "trust.json"
        self._clock = clock
        self._synced = synced
        self._newest = 0
        self._verified: dict[str, Verified] = {}
        self._damage: str | None = None
        self._read()

    @property
    def newest_released(self) -> int:
        """The latest date of a release that a trusted key signed, in s since the epoch; 0 = none yet."""
        return self._newest

    @property
    def damage(self) -> str | None:
        """The sentence about a record that could not be read; None when it is whole, or not there yet."""
        return self._damage

    def find(self, manifest_sha256: str) -> Verified | None:
        """The release with that manifest, if it was verified here."""
        return self._verified.get(manifest_sha256)

    def remember(self, manifest: Manifest, manifest_sha256: str, judgement: Judgement) -> None:
        """Note a release whose every hash was right; one that no trusted key signed is not noted.

        :raises InputError: ``locked``
        :raises LinkError: ``state_unwritable``
        """
        if judgement.principal is None or judgement.fingerprint is None:
            return
        with exclusive(self._path.with_suffix(".lock"), LOCK_PATIENCE):
            self._read()  # another process may have written since
            self._verified.pop(manifest_sha256, None)
            at = min(max(judgement.at, 0), FAR)
            self._verified[manifest_sha256] = Verified(
                manifest.version, manifest.released, judgement.principal, judgement.fingerprint, at
            )
            self._move_newest(manifest.released)
            self._write()

    def _move_newest(self, released: int) -> None:
        newest = max(self._newest, released)
        self._newest = max(0, min(newest, int(self._clock()) + LEAD)) if self._synced() else newest

    def _read(self) -> None:
        self._newest, self._verified, self._damage = 0, {}, None
        try:
            with self._path.open("rb") as file:
                content = file.read(RECORD_LIMIT + 1)
            self._newest, self._verified = _parse_record(content)
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            seen = error.strerror if isinstance(error, OSError) else "it is damaged"
            self._damage = (
                f"{self._path}, the record of verified releases, cannot be read ({seen}) and counts as empty: keys are"
                " judged anew for every release, and the next one that is verified begins it again"
            )

    def _write(self) -> None:
        kept = list(self._verified.items())[-VERIFIED_KEPT:]  # by order of use, since the clock may have been wrong
        self._verified = dict(kept)
        content = {
            "newest_released": self._newest,
            "verified": {digest: dataclasses.asdict(entry) for digest, entry in kept},
        }
        write_atomically(self._path, json.dumps(content, indent=1).encode())


def _parse_record(content: bytes) -> tuple[int, dict[str, Verified]]:
    """The newest date and the releases. :raises ValueError, TypeError, KeyError, RecursionError: it is no record"""
    if len(content) > RECORD_LIMIT:
        raise ValueError("it is too large")
    record = json.loads(content)
    verified = {digest: _parse_entry(digest, entry) for digest, entry in dict(record["verified"]).items()}
    return _date(record["newest_released"]), verified


def _parse_entry(digest: str, entry: Json) -> Verified:
    if not DIGEST.fullmatch(digest):
        raise ValueError("a key is no digest")
    found = Verified(**entry)
    _date(found.released)
    _date(found.at)
    if not all(isinstance(text, str) for text in (found.version, found.principal, found.fingerprint)):
        raise TypeError("a version or a name is no text")
    return found


def _date(value: object) -> int:
    if not is_whole(value) or not 0 <= value <= FAR:
        raise ValueError("a date is none")
    return value


def judge(
    manifest: bytes,
    signature: bytes | None,
    *,
    allowed_signers: pathlib.Path | None,
    policy: str,
    record: TrustRecord | None,
    clock: Clock,
    synced: collections.abc.Callable[[], bool],
    subject: str,
) -> Judgement:
    """Whether a manifest may be used, before anything that it names is looked at. Writes nothing.

    :param allowed_signers: who is trusted; None or a file that is not there = nobody is known yet
    :param policy: one of ``POLICIES``
    :param record: what was verified before; None = nothing is known
    :param subject: what to call the bundle in a sentence
    :raises InputError: ``invalid_option``, ``signature_invalid``, ``signers_missing``, ``invalid_signers``
    :raises RefusedError: ``bundle_unsigned``, ``signature_invalid``, ``signature_namespace``, ``signer_unknown``,
        ``signer_expired``, ``clock_wrong``
    :raises LinkError: ``requirement_unmet``, ``state_unwritable``
    """
    if policy not in POLICIES:
        raise InputError(
            "invalid_option", f"`signature_policy` is {printable(policy)!r}; give one of {', '.join(POLICIES)}"
        )
    if signature is None:
        return _unsigned(policy, subject)
    found = openssh.check(manifest, signature, subject)
    by = fingerprint(found.public_key)
    if allowed_signers is None or _is_absent(allowed_signers):
        return _said(record, _first_use(policy, subject, allowed_signers, by))
    known = record.find(hashlib.sha256(manifest).hexdigest()) if record else None
    if known is not None and known.fingerprint == by:
        principal = openssh.verify(manifest, signature, allowed_signers, known.at, subject)
        reason = f"{subject} was verified here at {openssh.when(known.at)}, signed by {principal} (key {by})"
        return Judgement(True, principal, reason, by, known.at)
    newest = record.newest_released if record else 0
    now, is_synced = clock(), synced()
    at = judged_time(now, is_synced, newest)
    with _clock_in_doubt(now, is_synced, at):
        principal = openssh.verify(manifest, signature, allowed_signers, at, subject)
    return _said(record, Judgement(True, principal, f"{subject} is signed by {principal} (key {by})", by, at))


def _said(record: TrustRecord | None, judgement: Judgement) -> Judgement:
    """The same, with a word about a damaged record."""
    if record is None or record.damage is None:
        return judgement
    return dataclasses.replace(judgement, reason=f"{judgement.reason}; {record.damage}")


def _unsigned(policy: str, subject: str) -> Judgement:
    if policy == "required":
        raise RefusedError(
            "bundle_unsigned",
            f"{subject} has no signature, and `signature_policy` is required; take a signed bundle, or sign it by"
            " building it with a `signing_key`",
        )
    return Judgement(False, None, f"{subject} has no signature: accepted, as `signature_policy` is if_present")


def _first_use(policy: str, subject: str, allowed_signers: pathlib.Path | None, by: str) -> Judgement:
    if policy == "required":
        seen = f"there is no {allowed_signers}" if allowed_signers else "no `allowed_signers` is given"
        raise InputError(
            "signers_missing",
            f"nobody can say whether the key {by} that signed {subject} is to be trusted: {seen}; write it by set-up,"
            " or name yours",
            fingerprint=by,
        )
    reason = (
        f"{subject} is signed by the key {by}, which nobody judged: accepted on first use, as no `allowed_signers` is"
        " here yet and `signature_policy` is if_present"
    )
    return Judgement(True, None, reason, by)


def _is_absent(path: pathlib.Path) -> bool:
    """Whether nothing has that name. What is there and cannot be used is refused when it is read, never skipped."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def _clock_in_doubt(clock: float, is_synced: bool, at: int) -> collections.abc.Iterator[None]:
    """Says of an expired key that it may be the clock, where the clock alone made it so and nothing has set it."""
    try:
        yield
    except RefusedError as error:
        if error.code != "signer_expired" or is_synced or at != int(clock):
            raise
        doubt = "; that is this machine's clock, which NTP has not set: if it is wrong, set it first"
        raise RefusedError(error.code, f"{error}{doubt}", **error.details) from error


def refuse_downgrade(new: Manifest, deployed: Manifest | None, allowed: bool) -> None:
    """Refuse a release that is older than the deployed one, or that cannot follow it.

    :param deployed: None = nothing is deployed yet
    :param allowed: whether going back was asked for; it makes no release fit one that is too old for it
    :raises InputError: ``downgrade``, ``too_old``
    """
    if deployed is None:
        return
    older = _older_by(new, deployed)
    if older and not allowed:
        raise InputError(
            "downgrade",
            f"release {new.version} (counter {new.counter}) is older by its {' and '.join(older)} than the deployed"
            f" {deployed.version} (counter {deployed.counter}); give `allow_downgrade` when you want to go back",
            version=new.version,
            counter=new.counter,
            deployed_version=deployed.version,
            deployed_counter=deployed.counter,
        )
    if new.oldest_version and parse_release_version(deployed.version) < parse_release_version(new.oldest_version):
        raise InputError(
            "too_old",
            f"release {new.version} cannot be deployed over {deployed.version}: it needs {new.oldest_version} or later;"
            f" deploy {new.oldest_version} or a later one before it",
            version=new.version,
            deployed_version=deployed.version,
            oldest_version=new.oldest_version,
        )


def _older_by(new: Manifest, deployed: Manifest) -> list[str]:
    found = ["version"] if parse_release_version(new.version) < parse_release_version(deployed.version) else []
    return [*found, "counter"] if new.counter < deployed.counter else found
