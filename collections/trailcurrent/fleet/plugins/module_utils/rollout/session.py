"""From a request's options to a rollout's outcome: builds the world, runs the engine in it, takes it down again."""

from __future__ import annotations

import collections.abc
import dataclasses
import os
import pathlib
import pwd
import typing as t

from ..errors import InputError
from ..journal import ImageStore, Json, Records, RunFolder
from ..links.mqtt_session import MqttSession, MqttSettings, mqtt_settings
from ..links.transfer import parse_port_range
from .bus import MqttBus
from .courier import Courier
from .engine import Rollout, World, make_tasks
from .gatekeeper import Gatekeeper
from .model import FAILING, Module, Options, Result, Status, Verify, read_modules
from .preconditions import parse_precondition

INHIBIT_FILE: t.Final = "~/.no-update"  # the module's default as well
TOUCHED: t.Final = frozenset({Status.UPDATED, Status.ROLLED_BACK})


@dataclasses.dataclass(frozen=True)
class Settings:
    """A request, checked."""

    modules: tuple[Module, ...]
    firmware_dir: pathlib.Path
    options: Options
    inhibit_files: tuple[pathlib.Path, ...]
    mqtt: MqttSettings

    @classmethod
    def from_options(cls, options: collections.abc.Mapping[str, t.Any]) -> Settings:
        """The settings that a module's options give.

        :raises InputError: naming the option that cannot be used
        """
        folder = pathlib.Path(options["firmware_dir"]).absolute()
        if not folder.is_dir():
            raise InputError(
                "image_missing", f"the firmware folder {folder} is not there; copy it to the Pi, or correct it"
            )
        return cls(
            modules=read_modules(options["modules"]),
            firmware_dir=folder,
            options=read_options(options),
            inhibit_files=_inhibit_files(pathlib.Path(options.get("inhibit_file") or INHIBIT_FILE).expanduser()),
            mqtt=mqtt_settings(options),
        )


def _inhibit_files(asked: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """The file asked for; where that is root's own, the file of the user who became root as well: the RV's owner."""
    owner = os.environ.get("SUDO_USER")
    if owner is None or asked != pathlib.Path(INHIBIT_FILE).expanduser():
        return (asked,)
    try:
        home = pathlib.Path(pwd.getpwnam(owner).pw_dir)
    except KeyError:
        return (asked,)
    return (asked, home / asked.name)


def read_options(options: collections.abc.Mapping[str, t.Any]) -> Options:
    """The rollout's own options, each within its range.

    :raises InputError: ``invalid_option``, naming it
    """
    names = {field.name for field in dataclasses.fields(Options)} - {"preconditions", "verify"}
    values = {name: options[name] for name in names if options.get(name) is not None}
    parsed = Options(
        **values,
        verify=Verify(options.get("verify") or Verify.IF_REPORTED),
        preconditions=tuple(parse_precondition(entry) for entry in options.get("preconditions") or ()),
    )
    parse_port_range(parsed.host_ports)
    for name in ("canary", "max_failures", "soak"):
        _at_least(name, getattr(parsed, name), 0)
    for name in ("parallel", "upload_attempts", "ready_timeout", "upload_timeout", "boot_timeout"):
        _at_least(name, getattr(parsed, name), 1)
    return parsed


def _at_least(name: str, value: float, least: int) -> None:
    if not value >= least:
        raise InputError("invalid_option", f"the option {name} is {value}; expected {least} or more")


async def roll_out(settings: Settings, folder: RunFolder, *, check: bool) -> Json:
    """Run the rollout, or plan it.

    :returns: ``changed`` and ``results``
    :raises FleetError: the broker cannot be used, the state cannot be written
    """
    with MqttSession(settings.mqtt) as session:
        bus = MqttBus(session, settings.options.preconditions)
        await bus.listen()
        state_dir = folder.path.parent.parent
        world = World(
            bus=bus,
            courier=Courier(),
            records=Records(state_dir),
            images=ImageStore(state_dir),
            folder=folder,
            gatekeeper=Gatekeeper(
                settings.inhibit_files, settings.options.preconditions, settings.options.override, bus
            ),
        )
        rollout = Rollout(make_tasks(settings.modules, settings.firmware_dir, world), settings.options, world)
        results = await (rollout.plan() if check else rollout.run())
    return outcome_of(results)


def outcome_of(results: collections.abc.Sequence[Result]) -> Json:
    """The outcome of a run whose every module has a result."""
    return {
        "changed": any(result.status in TOUCHED or result.status is Status.WOULD_UPDATE for result in results),
        "results": [result.as_json() for result in results],
        "failed_modules": [result.module.name.text for result in results if result.status in FAILING],
    }
