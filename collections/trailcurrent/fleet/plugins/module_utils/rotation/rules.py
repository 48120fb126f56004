"""Which secrets are to be changed, and to what: a pure decision.

- A secret that an earlier run began is finished before anything else is forgotten, whether it is named now or not.
- A value comes from a person, or, where no person needs to know it, from the run that began.
- A secret that has its new value everywhere already is left alone.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import typing as t

from ..errors import InputError, RefusedError

MQTT: t.Final = "mqtt"
CLOUD: t.Final = "cloud_api_key"


@dataclasses.dataclass(frozen=True)
class Kind:
    """A secret that can be changed.

    :param variable: in the environment files; None: it is in the database
    :param services: the containers that know it (PROTOCOLS.md, Docker services of an RV in the field)
    :param generated: whether a run may make it up, since no person enters it anywhere
    """

    variable: str | None
    services: tuple[str, ...]
    generated: bool = False


KINDS: t.Final[dict[str, Kind]] = {
    MQTT: Kind("MQTT_PASSWORD", ("mosquitto", "backend", "node-red"), generated=True),
    "admin": Kind("ADMIN_PASSWORD", ("backend",)),
    "node_red": Kind("NODE_RED_ADMIN_PASSWORD", ("node-red", "noderedproxy")),
    CLOUD: Kind(None, ("backend",)),
}

Values = collections.abc.Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The new values by secret, and which of them this run made up."""

    values: dict[str, str] = dataclasses.field(repr=False)
    generated: tuple[str, ...]

    @property
    def variables(self) -> dict[str, str]:
        """The new values that the environment files hold, by variable."""
        return {variable: self.values[name] for name in self.values if (variable := KINDS[name].variable)}

    @property
    def services(self) -> list[str]:
        """The containers that know one of them."""
        return sorted({service for name in self.values for service in KINDS[name].services})


def plan(wanted: Values, unfinished: collections.abc.Iterable[str], kept: Values, make: t.Callable[[], str]) -> Plan:
    """What to change, before it is known what the RV has.

    :param wanted: secret -> its new value, empty where a person chose none
    :param unfinished: the secrets that a run began and did not finish
    :param kept: the values that it made up
    :raises InputError: invalid_option, secret_missing
    :raises RefusedError: rotation_unfinished
    """
    unknown = sorted(wanted.keys() - KINDS.keys())
    if unknown:
        raise InputError(
            "invalid_option", f"{', '.join(unknown)} cannot be changed; `rotate_secrets` takes {', '.join(KINDS)}."
        )
    begun = [name for name in unfinished if name in KINDS]
    values: dict[str, str] = {}
    generated = []
    for name in KINDS:
        if name not in wanted and name not in begun:
            continue
        value = wanted.get(name) or (kept.get(name) if name in begun else None)
        if not value and name in begun and name not in wanted:
            raise _unfinished(name)
        if not value and not KINDS[name].generated:
            raise _not_chosen(name)
        values[name] = value or make()
        if not wanted.get(name):
            generated.append(name)
    return Plan(values, tuple(generated))


def left(plan_: Plan, current: collections.abc.Mapping[str, bool], unfinished: collections.abc.Container[str]) -> Plan:
    """The part of a plan that is not done.

    :param current: secret -> whether the RV has its new value everywhere
    """
    values = {name: value for name, value in plan_.values.items() if name in unfinished or not current[name]}
    return Plan(values, tuple(name for name in plan_.generated if name in values))


def _unfinished(name: str) -> RefusedError:
    return RefusedError(
        "rotation_unfinished",
        f"The secret `{name}` was changed in some places and not in all by an earlier run, and its new value is "
        f"not given now; give `{_option(name)}` again, and run it again.",
        name=name,
    )


def _option(name: str) -> str:
    return f"rotate_{name}" if name == CLOUD else f"rotate_{name}_password"


def _not_chosen(name: str) -> InputError:
    return InputError(
        "secret_missing",
        f"The new value of `{name}` must be chosen by a person; set `{_option(name)}` in the vault. "
        "Nothing was changed.",
        name=name,
    )
