"""The demo: two signed releases, and the real playbook that brings them to a virtual RV, judged by its own report.

Run it as ``./demo``. It ends the virtual RV whatever happens, and exits non-zero when anything went otherwise than
announced.
"""

from __future__ import annotations

import argparse
import collections
import collections.abc
import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time
import typing as t

import yaml

ROOT: t.Final = pathlib.Path(__file__).resolve().parent.parent
DIRECTORY: t.Final = ROOT / ".demo"
INVENTORY: t.Final = ROOT / "inventory/demo"
HOST: t.Final = "virtual-rv"
DEFAULT_MODULES: t.Final = 8
LATE: t.Final = 8.0  # s that the late module needs longer to join the Wi-Fi
BOOT_TIMEOUT: t.Final = 10.0  # s; emulated modules boot in half a second, so a silent one need not be waited for longer
IMAGE_SIZE: t.Final = 384 * 1024  # bytes: some 3 s at a module's 120 KB/s
OLD, NEW = "1.0.0", "1.1.0"

Json = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Step:
    """One run of the playbook: what happens, and how it must end."""

    story: str
    version: str
    statuses: collections.abc.Mapping[str, int]
    succeeds: bool
    faults: collections.abc.Mapping[str, Json] = dataclasses.field(default_factory=dict)
    silent: bool = False  # whether nothing may be sent to a module


def steps(hostnames: collections.abc.Sequence[str]) -> list[Step]:
    """The demo's three runs on these modules (at least two)."""
    others, late, broken = len(hostnames) - 1, hostnames[0], hostnames[-1]
    faults: dict[str, Json] = {
        late: {"absent_for": LATE},
        broken: {"silent_after_boot": True, "for_version": NEW},
    }
    return [
        Step(
            f"Release {OLD} goes to all {len(hostnames)} modules.",
            OLD,
            {"updated": len(hostnames)},
            succeeds=True,
        ),
        Step(
            f"Release {NEW}, with two faults: {late} joins the Wi-Fi {LATE:.0f} s late, and {broken} falls silent"
            f" after it has booted the new image, so {OLD} is put back on it. The playbook says so, and fails.",
            NEW,
            {"updated": others, "rolled_back": 1},
            succeeds=False,
            faults=faults,
        ),
        Step(
            f"Release {NEW} again: {others} are up to date, the image that failed on {broken} is held back,"
            " nothing is sent.",
            NEW,
            {"up_to_date": others, "held_back": 1},
            succeeds=True,
            silent=True,
        ),
    ]


def inventory(rv: Json, directory: pathlib.Path, **variables: t.Any) -> Json:
    """The inventory of a virtual RV: this machine stands for its Pi.

    :param rv: the content of ``rv.json``
    :param directory: where the RV's state and report go
    :param variables: more variables of the host
    """
    addresses = {module["hostname"]: {"address": module["address"], "port": module["port"]} for module in rv["modules"]}
    host = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "python_runtime_enabled": False,
        "mcu_firmware_env_file": rv["env_file"],
        "mcu_firmware_mongodb_uri": rv["mongodb_uri"],
        "mcu_firmware_state_dir": str(directory / "state"),
        "mcu_firmware_dir": str(directory / "firmware-on-pi"),
        "mcu_firmware_boot_timeout": BOOT_TIMEOUT,
        "mcu_firmware_modules": addresses,
        "deployment_bundle_cache": str(directory / "cache"),
        "deployment_bundle_state_dir": str(directory / "laptop"),
        **variables,
    }
    return {"rvs": {"hosts": {HOST: host}}}


def write_inventory(rv: Json, folder: pathlib.Path, directory: pathlib.Path, **variables: t.Any) -> pathlib.Path:
    """Write the inventory's one file below ``folder`` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "hosts.yml"
    path.write_text("---\n" + yaml.safe_dump(inventory(rv, directory, **variables), sort_keys=False))
    path.chmod(0o600)
    return path


def virtual_rv(*arguments: str) -> str:
    """Run ``python -m virtual_rv``; return what it prints.

    :raises subprocess.CalledProcessError: it failed; what it said is on the terminal
    """
    command = [sys.executable, "-m", "virtual_rv", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextlib.contextmanager
def running_rv(directory: pathlib.Path, modules: int) -> collections.abc.Iterator[Json]:
    """A virtual RV for as long as the block runs: the content of its ``rv.json``."""
    shutil.rmtree(directory, ignore_errors=True)
    try:
        virtual_rv("up", "--directory", str(directory), "--modules", str(modules))
        yield json.loads((directory / "rv.json").read_text())
    finally:
        virtual_rv("down", "--directory", str(directory))


def write_firmware(folder: pathlib.Path, version: str) -> None:
    """Make images of one release for every type of module below ``folder``."""
    virtual_rv("firmware", "--directory", str(folder), "--version", version, "--size", str(IMAGE_SIZE))


def package(version: str, directory: pathlib.Path) -> pathlib.Path:
    """Build and sign the bundle of one release as an operator does; return its path.

    Firmware only: images of services need Debian's packages, and what a Pi needs besides needs the network.

    :raises subprocess.CalledProcessError: it could not be built; what was said is on the terminal
    """
    given = {"demo_dir": str(directory), "demo_version": version, "demo_size": IMAGE_SIZE}
    words = {**given, "demo_images": False, "deployment_bundle_payload": False}
    playbook("package.yml", INVENTORY, "-e", json.dumps(words)).check_returncode()
    return directory / f"bundles/trailcurrent-deployment-{version}.zip"


def playbook(name: str, hosts: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a playbook of ours as a user does, from the clone."""
    ansible = pathlib.Path(sys.executable).parent / "ansible-playbook"
    command = [str(ansible), str(ROOT / "playbooks" / name), "-i", str(hosts), *arguments]
    shown = shlex.join(["ansible-playbook", *(part.replace(f"{ROOT}/", "") for part in command[1:])])
    print(f"$ {shown}", flush=True)
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False)


def triggers(directory: pathlib.Path) -> int:
    """How many triggers the modules of the RV have heard so far."""
    status = json.loads(virtual_rv("status", "--json", "--directory", str(directory)))
    return sum(module["triggers"] for module in status["modules"])


def statuses(report: pathlib.Path) -> dict[str, int]:
    """How many modules ended with which status, from the playbook's report file."""
    content = json.loads(report.read_text()) if report.exists() else {"rvs": {}}
    return dict(collections.Counter(module["status"] for rv in content["rvs"].values() for module in rv["modules"]))


def differences(step: Step, returncode: int, ended: collections.abc.Mapping[str, int], sent: int) -> list[str]:
    """What went otherwise than announced, a sentence each."""
    found = []
    if dict(ended) != dict(step.statuses):
        found.append(f"the modules ended as {dict(ended)}, expected {dict(step.statuses)}")
    if (returncode == 0) != step.succeeds:
        found.append(
            f"ansible-playbook exited with {returncode}, expected {'0' if step.succeeds else 'another status'}"
        )
    if step.silent and sent:
        found.append(f"{sent} triggers were sent, expected none")
    return found


def perform(step: Step, number: int, directory: pathlib.Path, bundle: pathlib.Path) -> list[str]:
    """One run: set the faults, play, compare; returns what went otherwise."""
    print(f"\n=== {number}. {step.story}\n", flush=True)
    faults = directory / f"faults-{number}.yml"
    faults.write_text(yaml.safe_dump(dict(step.faults)))
    virtual_rv("faults", "--directory", str(directory), str(faults))
    before, started, report = triggers(directory), time.monotonic(), directory / f"report-{number}.json"
    words = ["-e", f"demo_dir={directory}", "-e", f"fleet_bundle={bundle}", "-e", f"fleet_report_file={report}"]
    done = playbook("firmware.yml", INVENTORY, *words)
    found = differences(step, done.returncode, statuses(report), triggers(directory) - before)
    took = f"{time.monotonic() - started:.0f} s"
    print(f"--- {'NOT as announced: ' + '; '.join(found) if found else 'as announced'} ({took})", flush=True)
    return found


def main(arguments: collections.abc.Sequence[str] | None = None) -> int:
    """The whole demo; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="./demo", description="A virtual RV, two signed releases, and firmware.yml run against it three times."
    )
    parser.add_argument(
        "--modules", type=int, default=DEFAULT_MODULES, metavar="N", help="emulated modules (2 or more)"
    )
    modules = parser.parse_args(arguments).modules
    if modules < 2:
        parser.error("--modules must be 2 or more: one module fails in the demo, another does not")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"=== A virtual RV of {modules} modules starts below {DIRECTORY.name}/ (broker, database, CAN bus, bridge).")
    with running_rv(DIRECTORY, modules) as rv:
        write_inventory(rv, INVENTORY, DIRECTORY)
        print("\n=== Two releases are packed and signed.\n", flush=True)
        bundles = {version: package(version, DIRECTORY) for version in (OLD, NEW)}
        names = [module["hostname"] for module in rv["modules"]]
        found = [
            text
            for number, step in enumerate(steps(names), 1)
            for text in perform(step, number, DIRECTORY, bundles[step.version])
        ]
    print(
        f"\n=== The virtual RV is down. {'Something went otherwise than announced.' if found else 'All as announced.'}"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
