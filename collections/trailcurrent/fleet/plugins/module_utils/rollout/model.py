"""What a rollout speaks of: modules, images, what is known of them, and results."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import typing as t

from ..errors import InputError
from ..formats import esp_image
from ..formats.hostname import ModuleName, parse_hostname
from ..formats.registry import TRANSPORTS, check_type
from .preconditions import Precondition

Version = tuple[int, int, int]
Json = dict[str, t.Any]

HISTORY_KEPT: t.Final = 20  # results of a module; older ones are forgotten
REFUSALS_KEPT: t.Final = 20  # images that failed on a module


class Status(enum.StrEnum):
    """How a rollout ended for one module (DESIGN.md, ``firmware_rollout``)."""

    UPDATED = "updated"
    UP_TO_DATE = "up_to_date"
    ROLLED_BACK = "rolled_back"
    HELD_BACK = "held_back"
    FAILED = "failed"
    NOT_REACHED = "not_reached"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"
    REVERTED = "reverted"
    WOULD_UPDATE = "would_update"  # check mode only


FAILING: t.Final = frozenset({Status.ROLLED_BACK, Status.FAILED, Status.NOT_REACHED, Status.UNKNOWN, Status.REVERTED})


class Verify(enum.StrEnum):
    """How much proof an update needs (DESIGN.md, ``verify``)."""

    REQUIRED = "required"
    IF_REPORTED = "if_reported"
    NONE = "none"


class Proof(enum.StrEnum):
    """How it is known that the module runs the image."""

    VERSION = "version"
    REBOOT = "reboot"
    UPLOAD = "upload"


class Phase(enum.StrEnum):
    """Where a module is. ``seconds`` of a result has one entry for each of the first four."""

    WAITING = "waiting"
    WAKING = "waking"
    UPLOADING = "uploading"
    BOOTING = "booting"
    DONE = "done"


@dataclasses.dataclass(frozen=True)
class Module:
    """One module as the request names it."""

    name: ModuleName
    type: str
    enabled: bool = True
    ota: str | None = None
    target: str | None = None
    addr: int | None = None
    address: str | None = None
    port: int | None = None
    password: str | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def from_options(cls, options: collections.abc.Mapping[str, t.Any]) -> Module:
        """The module that an entry of the option ``modules`` describes.

        :raises InputError: ``invalid_hostname``, ``invalid_type``
        """
        fields = {field.name for field in dataclasses.fields(cls)} - {"name", "type"}
        values = {key: options[key] for key in fields if options.get(key) is not None}
        return cls(name=parse_hostname(options["hostname"]), type=check_type(options["type"]), **values)


def read_modules(entries: collections.abc.Iterable[collections.abc.Mapping[str, t.Any]]) -> tuple[Module, ...]:
    """All modules of a request.

    :raises InputError: a name or type is malformed, or two entries name the same module
    """
    modules = tuple(Module.from_options(entry) for entry in entries)
    seen: dict[str, Module] = {}
    for module in modules:
        twin = seen.setdefault(module.name.key, module)
        if twin is not module:
            raise InputError(
                "duplicate_hostname",
                f"the modules {twin.name.text} and {module.name.text} have the same last MAC bytes, so one trigger"
                " would wake both; remove one of the two from the registry",
            )
    return modules


@dataclasses.dataclass(frozen=True)
class Options:
    """How the rollout shall go. Times in seconds."""

    parallel: int = 8
    canary: int = 0
    max_failures: int = 0
    soak: float = 0.0
    force: bool = False
    verify: Verify = Verify.IF_REPORTED
    rollback: bool = True
    preconditions: tuple[Precondition, ...] = ()
    override: str | None = None
    host_ip: str | None = None
    host_ports: str = "10000-60000"
    ready_timeout: float = 60.0
    upload_timeout: float = 300.0
    boot_timeout: float = 30.0
    upload_attempts: int = 2


@dataclasses.dataclass(frozen=True)
class Firmware:
    """An image that was read and found whole."""

    sha256: str
    version: str
    content: bytes = dataclasses.field(repr=False)

    @classmethod
    def from_image(cls, image: esp_image.Image, content: bytes) -> Firmware:
        """The firmware that ``content`` holds."""
        return cls(image.sha256, image.version, content)

    @property
    def comparable(self) -> Version | None:
        """The version as modules report it; None when it is no ``v?X.Y.Z``."""
        return esp_image.parse_version(self.version)


@dataclasses.dataclass(frozen=True)
class Reported:
    """A version that a module reported on CAN (0x04), and when (epoch seconds of the Pi)."""

    version: Version
    at: float

    def __str__(self) -> str:
        return esp_image.format_version(self.version)


@dataclasses.dataclass(frozen=True)
class Verified:
    """An image that was proven to run on a module. ``report_at`` is as in ``Attempt``."""

    sha256: str
    version: str
    proof: Proof
    at: float
    report_at: float | None = None


@dataclasses.dataclass(frozen=True)
class Attempt:
    """An upload that was begun and not yet judged: what the next run finds after a power cut.

    It is on disk before the trigger, and again with ``answered`` after the module's final answer. ``report_at`` is the
    bridge's time of the last report that it had told us of by then: one with another time came later. Times are never
    compared by size, because the clock of a Pi without a battery jumps.
    """

    sha256: str
    version: str
    started: float
    answered: float | None = None
    from_version: str | None = None
    restoring: str | None = None  # the code for which the old image goes back
    report_at: float | None = None
    tries: int = 0  # how often the old image was put back in vain


@dataclasses.dataclass(frozen=True)
class Refusal:
    """An image that failed on a module."""

    code: str
    sentence: str
    at: float


@dataclasses.dataclass(frozen=True)
class Record:
    """What this Pi knows of one module."""

    ota: str | None = None
    reports: bool = False
    verified: Verified | None = None
    previous: Verified | None = None  # what was verified before that, with other content
    attempt: Attempt | None = None
    refused: collections.abc.Mapping[str, Refusal] = dataclasses.field(default_factory=dict)
    history: tuple[Json, ...] = ()

    @classmethod
    def from_json(cls, data: Json) -> Record:
        """The record in ``data``; what cannot be read is left out: a lost record costs one upload, no module."""
        return cls(
            ota=data.get("ota") if data.get("ota") in TRANSPORTS else None,
            reports=bool(data.get("reports")),
            verified=_restore(Verified, data.get("verified")),
            previous=_restore(Verified, data.get("previous")),
            attempt=_restore(Attempt, data.get("attempt")),
            refused={
                sha256: refusal
                for sha256, value in _dictionary(data.get("refused")).items()
                if (refusal := _restore(Refusal, value))
            },
            history=tuple(history) if isinstance(history := data.get("history"), list) else (),
        )

    def as_json(self) -> Json:
        """The record for ``Records.write``."""
        return dataclasses.asdict(self)

    def with_result(self, result: Result, at: float) -> Record:
        """The same, with one more result in its history."""
        told = result.as_json()
        entry = {key: told[key] for key in ("status", "code", "from_version", "to_version", "proof", "error")}
        return dataclasses.replace(self, history=(*self.history, {"at": round(at, 3), **entry})[-HISTORY_KEPT:])

    def with_refusal(self, sha256: str, refusal: Refusal) -> Record:
        """The same, with one more image that failed."""
        refused = {**{k: v for k, v in self.refused.items() if k != sha256}, sha256: refusal}
        return dataclasses.replace(self, refused=dict(list(refused.items())[-REFUSALS_KEPT:]))

    def with_verified(self, verified: Verified) -> Record:
        """The same, with ``verified`` proven and nothing under way."""
        refused = {k: v for k, v in self.refused.items() if k != verified.sha256}
        other = self.verified is not None and self.verified.sha256 != verified.sha256
        previous = self.verified if other else self.previous
        return dataclasses.replace(self, verified=verified, previous=previous, attempt=None, refused=refused)


_T = t.TypeVar("_T")


def _dictionary(data: object) -> Json:
    return data if isinstance(data, dict) else {}


def _restore(kind: type[_T], data: object) -> _T | None:
    """The object in ``data``; None where a name or the kind of a value is not what we write."""
    if not isinstance(data, dict):
        return None
    hints = t.get_type_hints(kind)
    try:
        return kind(**{name: _of_kind(value, hints[name]) for name, value in data.items()})
    except (KeyError, TypeError, ValueError):
        return None


def _of_kind(value: object, hint: t.Any) -> object:
    kinds = t.get_args(hint) or (hint,)
    if Proof in kinds:
        return Proof(t.cast(str, value))
    if isinstance(value, bool) or not isinstance(value, (*kinds, int) if float in kinds else kinds):
        raise TypeError(f"{value!r} is no {hint}")
    return value


@dataclasses.dataclass(frozen=True)
class Result:
    """What is said of one module at the end."""

    module: Module
    status: Status
    code: str | None = None
    proof: Proof | None = None
    from_version: str | None = None
    to_version: str | None = None
    seconds: collections.abc.Mapping[str, float] = dataclasses.field(default_factory=dict)
    attempts: int = 0
    error: str | None = None
    detail: str | None = None
    host_address: str | None = None
    last: Json | None = None

    def as_json(self) -> Json:
        """The entry of ``results``."""
        return {
            "hostname": self.module.name.text,
            "type": self.module.type,
            "status": self.status.value,
            "code": self.code,
            "proof": self.proof.value if self.proof else None,
            "from_version": self.from_version,
            "to_version": self.to_version,
            "seconds": {phase: round(value, 2) for phase, value in self.seconds.items()},
            "attempts": self.attempts,
            "error": self.error,
            "detail": self.detail,
            "host_address": self.host_address,
            "last": self.last,
        }
