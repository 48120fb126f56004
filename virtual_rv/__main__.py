"""The command line: ``python -m virtual_rv --help``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
import typing as t

from .config import ConfigError, default_config, load_config, load_yaml
from .control import ControlError, Json, NotRunningError, ask
from .firmware import write_firmware
from .image import MINIMUM_SIZE
from .release import Release, write_keys, write_release
from .service_image import PackageError, write_images
from .supervisor import SupervisorError, down, make_config, run_modules, supervise, up

FIRMWARE_MODULES: t.Final = 64
"""Modules of the default RV whose types and addresses `firmware` writes: enough for every address of each type."""
COLUMNS: t.Final = ("hostname", "type", "ota", "address", "state", "version", "uploads", "triggers", "faults")


def main(arguments: t.Sequence[str] | None = None) -> int:
    """Run one command; return the exit status (0 done, 1 failed, 2 wrong arguments, 3 `status` of nothing)."""
    options = _parser().parse_args(arguments)
    if getattr(options, "directory", None):
        options.directory = options.directory.resolve()
    try:
        return int(options.run(options))
    except NotRunningError as error:
        print(f"virtual_rv: {error}", file=sys.stderr)
        return 3
    except (ConfigError, ControlError, PackageError, SupervisorError, OSError, ValueError) as error:
        print(f"virtual_rv: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m virtual_rv", description="A virtual RV on this machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("up", _up, "start an RV in the background; returns when everything answers"),
        ("supervise", _supervise, "run an RV in the foreground, in a directory that exists (used by `up`)"),
    ):
        command = _command(commands, name, run, text)
        _add_config(command)
        command.add_argument("--no-bridge", action="store_true", help="run without the CAN bridge")
    _command(commands, "down", _down, "end the RV of a directory; nothing of it stays running")
    command = _command(commands, "status", _status, "show the modules of the RV that runs in a directory")
    command.add_argument("--json", action="store_true", help="as JSON")
    command = _command(commands, "faults", _faults, "set what goes wrong with the modules, from now on")
    command.add_argument("file", type=pathlib.Path, help="YAML: hostname -> fault -> value; who is not named has none")
    command = _command(commands, "power-cycle", _power_cycle, "switch modules off and on")
    command.add_argument("hostnames", nargs="+")
    _add_modules(commands)
    _add_firmware(commands)
    command = _command(commands, "images", _images, "write images of the RV's Docker services, from Debian packages")
    command.add_argument("--version", required=True)
    _add_release(commands)
    return parser


def _add_release(commands: t.Any) -> None:
    command = _command(commands, "release", _release, "write the source of a release: bundle.yml and what it names")
    _add_config(command)
    command.add_argument("--version", required=True)
    command.add_argument("--size", type=int, help=f"bytes of each firmware image, at least {MINIMUM_SIZE}")
    command.add_argument("--no-images", action="store_true", help="firmware only")
    command.add_argument("--keys", type=pathlib.Path, metavar="DIR", help="have a signing key there")


def _add_modules(commands: t.Any) -> None:
    command = _command(
        commands, "modules", _modules, "run only the emulated modules, in the foreground", required=False
    )
    _add_config(command)
    for name, kind in (("interface", str), ("channel", str), ("port", int), ("hop-limit", int)):
        command.add_argument(f"--can-{name}", type=kind, help="wins over the config's `can`")


def _add_firmware(commands: t.Any) -> None:
    command = _command(commands, "firmware", _firmware, "write valid images for the RV's types below DIR/wired")
    _add_config(command)
    command.add_argument("--version", required=True)
    command.add_argument("--size", type=int, help=f"bytes of each image, at least {MINIMUM_SIZE}")


def _command(
    commands: t.Any, name: str, run: t.Callable[[argparse.Namespace], int], text: str, *, required: bool = True
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument("--directory", type=pathlib.Path, required=required, metavar="DIR")
    command.set_defaults(run=run)
    return command


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=pathlib.Path, metavar="FILE", help="YAML; its names are in config.py")
    command.add_argument("--modules", type=int, metavar="N", help="so many modules of real types")


def _up(options: argparse.Namespace) -> int:
    up(options.directory, options.config, options.modules, with_bridge=not options.no_bridge)
    print(f"The virtual RV is up: {options.directory / 'rv.json'}")
    return 0


def _supervise(options: argparse.Namespace) -> int:
    config = make_config(options.config, options.modules)
    return supervise(options.directory, config, with_bridge=not options.no_bridge)


def _down(options: argparse.Namespace) -> int:
    was_up = options.directory.is_dir() and down(options.directory)
    print("The virtual RV is down." if was_up else "No virtual RV ran there.")
    return 0


def _status(options: argparse.Namespace) -> int:
    status = ask(options.directory, "status")
    print(json.dumps(status, indent=2) if options.json else _table(status))
    return 0


def _faults(options: argparse.Namespace) -> int:
    ask(options.directory, "faults", faults=load_yaml(options.file))
    return 0


def _power_cycle(options: argparse.Namespace) -> int:
    ask(options.directory, "power_cycle", hostnames=options.hostnames)
    return 0


def _modules(options: argparse.Namespace) -> int:
    config = make_config(options.config, options.modules)
    given = {
        name: value
        for name in ("interface", "channel", "port", "hop_limit")
        if (value := getattr(options, f"can_{name}")) is not None
    }
    config = dataclasses.replace(config, bus=dataclasses.replace(config.bus, **given))
    return run_modules(config, options.directory)


def _firmware(options: argparse.Namespace) -> int:
    modules = FIRMWARE_MODULES if options.modules is None else options.modules
    config = load_config(options.config) if options.config else default_config(modules)
    for path in write_firmware(config, options.directory, options.version, options.size):
        print(path)
    return 0


def _images(options: argparse.Namespace) -> int:
    for path in write_images(options.directory, options.version):
        print(path)
    return 0


def _release(options: argparse.Namespace) -> int:
    modules = FIRMWARE_MODULES if options.modules is None else options.modules
    config = load_config(options.config) if options.config else default_config(modules)
    release = Release(options.version, options.size, with_images=not options.no_images)
    print(write_release(config, options.directory, release))
    if options.keys:
        print(write_keys(options.keys.resolve()))
    return 0


def _table(status: Json) -> str:
    """Return the status as a table for people."""
    rows = [[_cell(module[column]) for column in COLUMNS] for module in status["modules"]]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in [COLUMNS, *rows]]
    bridge = [f"bridge: {status['bridge']}"] if "bridge" in status else []
    return "\n".join(line.rstrip() for line in [*lines, *bridge])


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={setting}" for name, setting in value.items()) or "-"
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
