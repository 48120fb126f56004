"""What the two environment files shall hold, as a pure decision on what they hold and what is wanted.

- A secret that is there is kept; another one takes its place only where ``replace`` names it.
- Where the files disagree on a secret, neither is chosen.
- ENCRYPTION_KEY and NODE_RED_CREDENTIAL_SECRET are made when neither file has them, and what they lock is not there.
- A line whose readers disagree is no value: it is written anew where its value is given, else refused by name.
- What nobody asked for stays: unknown names, comments, order, and lines that need no change.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import re
import typing as t

from ..errors import InputError, RefusedError
from ..formats.env_file import Assignment
from ..formats.env_quoting import EnvKind, is_agreed, is_plain, unsupported
from .names import (
    BY_NAME,
    CERTIFICATE_NAME,
    ENCRYPTION_KEY,
    KNOWN,
    Origin,
    for_programs,
    from_programs,
    is_secret,
)

NAME: t.Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)  # what shells and systemd take
KEY: t.Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)  # AES-256's (PROTOCOLS.md, MongoDB on the Pi)
KEY_NEEDED: t.Final = f"{ENCRYPTION_KEY} must be 64 hexadecimal digits"

Values = dict[str, str]
Generate = collections.abc.Callable[[int], str]


@dataclasses.dataclass(frozen=True)
class EnvFile:
    """One of the two files as it is: the last assignment of each name."""

    kind: EnvKind
    label: str
    lines: collections.abc.Mapping[str, Assignment]

    def value(self, name: str) -> str | None:
        """The value that all readers agree on; None where there is none, and where it is empty."""
        line = self.lines.get(name)
        return line.value or None if line is not None and is_agreed(line, self.kind) else None

    def doubted(self, name: str) -> bool:
        """Whether its line is read differently by different readers."""
        return name in self.lines and not is_agreed(self.lines[name], self.kind)


Files = tuple[EnvFile, EnvFile]  # ~/.env, ~/local_code/.env


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the inventory asks for.

    :param hostname: the RV's name; empty: what the files say
    :param replace: the secrets whose values on the Pi may be replaced by the given ones
    :param old_release: why a release of the old kind is believed to be kept, or None: its programs know no quotes
    """

    hostname: str
    secrets: collections.abc.Mapping[str, str] = dataclasses.field(repr=False)
    settings: collections.abc.Mapping[str, str]
    replace: frozenset[str]
    old_release: str | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What each file shall hold, as values; only names that change."""

    compose: Values = dataclasses.field(repr=False)
    programs: Values = dataclasses.field(repr=False)
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    generated: tuple[str, ...]
    warnings: tuple[str, ...]


def check_wanted(wanted: Wanted) -> None:
    """Refuse what cannot work, whatever the Pi has: bad names, values that nothing carries, a key of the wrong size."""
    for name, value in {**wanted.settings, **wanted.secrets}.items():
        if not NAME.fullmatch(name):
            raise InputError(
                "invalid_option", f"{name!r} is no name of a variable; give letters, digits and underscores."
            )
        seen = unsupported(value)
        if seen is not None:
            raise _unsupported(name, seen)
    _check_key(wanted)
    lacking = sorted(name for name in wanted.replace if not wanted.secrets.get(name))
    if lacking:
        raise InputError("invalid_option", f"{_list(lacking)} cannot be replaced: no new value is given in the vault.")
    both = sorted({name for name in wanted.settings if is_secret(name)} | wanted.settings.keys() & wanted.secrets)
    if both:
        raise InputError("invalid_option", f"{_list(both)} cannot be a setting: it is a secret; give it as one.")


def missing_secrets(files: Files, wanted: Wanted) -> list[str]:
    """The generated secrets that no file has and nobody gives, in the order of ``KNOWN``."""
    return [
        known.name
        for known in KNOWN
        if known.origin is Origin.GENERATED
        and not wanted.secrets.get(known.name)
        and not any(file.value(known.name) or file.doubted(known.name) for file in files)
    ]


def plan(files: Files, wanted: Wanted, generate: Generate) -> Plan:
    """What to change in the files.

    :param generate: bytes -> that many random ones in hex
    :raises InputError: secret_missing, secret_unsupported, invalid_option
    :raises RefusedError: secret_differs, secrets_disagree
    """
    compose, programs = files
    certificate_name = _certificate_name(files, wanted)
    values = _kept_and_given(files, wanted, certificate_name)
    _check_people(values)
    generated = missing_secrets(files, wanted)
    made = {name: generate(BY_NAME[name].random_bytes) for name in generated}
    values = {name: value for name in [*BY_NAME, *values] if (value := (values | made).get(name))}
    changes = {name: value for name, value in values.items() if compose.value(name) != value}
    their_values = {name: for_programs(name, value, certificate_name) for name, value in values.items()}
    their_values |= _copied(files, values)
    theirs = {name: value for name, value in their_values.items() if programs.value(name) != value}
    _check_for_old_release(changes, theirs, wanted)
    before = [name for name in {**changes, **theirs} if any(name in file.lines for file in files)]
    return Plan(
        compose=changes,
        programs=theirs,
        added=tuple(name for name in {**changes, **theirs} if name not in before),
        replaced=tuple(before),
        generated=tuple(generated),
        warnings=tuple(_warnings(files, values)),
    )


def _certificate_name(files: Files, wanted: Wanted) -> str:
    own = f"{wanted.hostname}.local" if wanted.hostname else None
    given = wanted.settings.get(CERTIFICATE_NAME) or own
    found = given or next((file.value(CERTIFICATE_NAME) for file in files if file.value(CERTIFICATE_NAME)), None)
    if not found:
        raise InputError(
            "invalid_option",
            f"Neither environment file has {CERTIFICATE_NAME}, and no hostname is given; give the RV's hostname.",
        )
    return found


def _kept_and_given(files: Files, wanted: Wanted, certificate_name: str) -> Values:
    """The values of all names that both files shall hold alike; secrets that are yet to be made are not among them."""
    values: Values = {}
    names = dict.fromkeys([*(known.name for known in KNOWN), *wanted.settings, *wanted.secrets])
    for name in names:
        if is_secret(name) or name in wanted.secrets:
            value = _secret(name, files, wanted)
        elif name == CERTIFICATE_NAME:
            value = certificate_name
        else:
            value = _setting(name, files, wanted, certificate_name)
        if value:
            values[name] = value
    return values


def _secret(name: str, files: Files, wanted: Wanted) -> str | None:
    given = wanted.secrets.get(name) or None
    if name in wanted.replace:
        return given
    for file in files:
        if file.doubted(name):
            raise _doubted(name, file)
    found = dict.fromkeys(value for file in files if (value := file.value(name)))
    if len(found) > 1:
        raise RefusedError(
            "secrets_disagree",
            f"{files[0].label} and {files[1].label} hold different values of {name}, so neither was chosen; make them "
            f"equal by hand, or give the right one in the vault and name {name} in `environment_files_replace`.",
            name=name,
        )
    kept = next(iter(found), None)
    if kept and given and kept != given:
        raise RefusedError(
            "secret_differs",
            f"The {name} that is given is not the one on the Pi, and a secret is never changed silently; nothing was "
            f"written: take the Pi's one into the vault, or change it everywhere with rotate.yml, or name {name} in "
            "`environment_files_replace`.",
            name=name,
        )
    return kept or given


def _setting(name: str, files: Files, wanted: Wanted, certificate_name: str) -> str | None:
    """A setting's value for both files; None leaves each as it is: a line in doubt, or files that differ."""
    if wanted.settings.get(name):
        return wanted.settings[name]
    if any(file.doubted(name) for file in files):
        return None
    compose = files[0].value(name)
    theirs = _as_compose(name, files, certificate_name)
    if compose and theirs and compose != theirs:
        return None
    known = BY_NAME.get(name)
    return compose or theirs or (known.default if known else None)


def _as_compose(name: str, files: Files, certificate_name: str) -> str | None:
    """What the programs' file says, in the terms of ``~/.env``."""
    value = files[1].value(name)
    own_names = {certificate_name, *(found for file in files if (found := file.value(CERTIFICATE_NAME)))}
    return None if value is None else from_programs(name, value, own_names)


def _copied(files: Files, values: Values) -> Values:
    """Names of the owner's own in ``~/.env`` that the programs' file lacks, where every reader would get the same."""
    compose, programs = files
    own = {name: compose.value(name) for name in compose.lines if name not in values and name not in BY_NAME}
    return {
        name: value
        for name, value in own.items()
        if value and name not in programs.lines and NAME.fullmatch(name) and all(is_plain(value, k) for k in EnvKind)
    }


def _check_people(values: Values) -> None:
    lacking = [known for known in KNOWN if known.origin is Origin.PERSON and known.name not in values]
    if lacking:
        options = _list([f"`{known.option}`" for known in lacking])
        raise InputError(
            "secret_missing",
            f"{_list([known.name for known in lacking])} must be chosen by a person, and neither the Pi nor the "
            f"inventory has it; set {options} in the vault.",
            names=[known.name for known in lacking],
        )


def _check_key(wanted: Wanted) -> None:
    key = wanted.secrets.get(ENCRYPTION_KEY)
    if key and not KEY.fullmatch(key):
        raise InputError("secret_unsupported", f"The {ENCRYPTION_KEY} that is given cannot work: {KEY_NEEDED}.")


def _check_for_old_release(compose: Values, programs: Values, wanted: Wanted) -> None:
    if wanted.old_release is None:
        return
    for changes in (compose, programs):
        for name, value in changes.items():
            if not all(is_plain(value, kind) for kind in EnvKind):
                raise _unsupported(
                    name,
                    "only quotes can carry it, and the programs of the old release that is kept "
                    f"({wanted.old_release}) take quotes for a part of it",
                )


def _warnings(files: Files, values: Values) -> list[str]:
    compose, programs = files
    left = sorted(name for name in compose.lines.keys() & programs.lines.keys() if name not in values)
    found = [
        f"{name} differs between {compose.label} and {programs.label}; both are left as they are."
        for name in left
        if compose.lines[name].value != programs.lines[name].value
    ]
    if not KEY.fullmatch(values[ENCRYPTION_KEY]):
        found.append(f"The {ENCRYPTION_KEY} on the Pi was kept, and cannot work: {KEY_NEEDED}.")
    return found


def _doubted(name: str, file: EnvFile) -> InputError:
    line = file.lines[name].line
    return InputError(
        "secret_unsupported",
        f"{name} in line {line} of {file.label} is read differently by its readers (a dollar sign, a backslash, quotes "
        "or a comment), so its value is not known; write that line so that all agree, or give the value in the vault "
        f"and name {name} in `environment_files_replace`.",
        name=name,
        line=line,
    )


def _unsupported(name: str, seen: str) -> InputError:
    return InputError(
        "secret_unsupported",
        f"The value of {name} cannot be written so that every reader gets the same: {seen}; choose another value.",
        name=name,
    )


def _list(names: collections.abc.Iterable[str]) -> str:
    return ", ".join(names)
