"""An RV for the rollout's tests: real Mosquitto, the real bridge, a UDP bus, emulated modules on loopback addresses.

with Rv(tmp_path, broker) as rv:
    rv.add("gnss_module", version="0.9.0", faults=Faults(silent_after_boot=True))
    rv.ship("gnss_module", "1.0.0")
    results = rv.roll_out()          # in a process of its own, as on the Pi
    assert results[0]["status"] == "updated"
"""

from __future__ import annotations

import asyncio
import collections.abc
import concurrent.futures
import itertools
import json
import os
import pathlib
import random
import subprocess
import sys
import threading
import time
import typing as t

from tests.integration.broker import Mosquitto
from virtual_rv.bus import BusSettings, CanBus
from virtual_rv.image import make_image
from virtual_rv.module import EmulatedModule, Faults, ModuleSettings

ROOT: t.Final = pathlib.Path(__file__).resolve().parents[2]
PYTHONPATH: t.Final = f"{ROOT / 'collections'}:{ROOT}"
BRIDGE_TIMEOUT: t.Final = 20.0  # s until the bridge says that it is online
PROCESS: t.Final = "ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout.process"

_T = t.TypeVar("_T")

RUNNER: t.Final = f"""
import json, sys
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from {PROCESS.rpartition(".")[0]} import process
options = json.load(sys.stdin)
try:
    outcome = getattr(process, sys.argv[1])(options)
except FleetError as error:
    outcome = {{"error": str(error), "code": error.code}}
print(json.dumps(outcome))
"""


class Rv:
    """One RV. ``boards`` are its emulated modules by hostname; ``entries`` what the registry would say of them."""

    def __init__(self, directory: pathlib.Path, broker: Mosquitto, *, old_bridge: bool = False) -> None:
        self.directory = directory
        self.broker = broker
        self.firmware = directory / "firmware"
        self.state = directory / "state"
        self.firmware.mkdir()
        self.boards: dict[str, EmulatedModule] = {}
        self.entries: list[dict[str, t.Any]] = []
        self._old_bridge = old_bridge
        self._bus_settings = BusSettings().resolved()
        self._numbers = itertools.count(11)
        self._block = f"127.{random.randint(100, 200)}.{random.randint(0, 250)}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._bus: CanBus | None = None
        self._bridge: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> t.Self:
        self._thread.start()
        self._bus = self.call(self._open_bus())
        self.start_bridge()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_bridge()
        for board in self.boards.values():
            self.call(board.stop())
        if self._bus:
            self.call(self._bus.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, work: collections.abc.Coroutine[t.Any, t.Any, _T]) -> _T:
        """Run ``work`` where the modules run."""
        future: concurrent.futures.Future[_T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(60)

    async def _open_bus(self) -> CanBus:
        bus = CanBus(self._bus_settings)
        await bus.start()
        return bus

    # the bridge

    def start_bridge(self) -> None:
        """Run the real bridge, or one of the old kind; returns when it is online."""
        environment = os.environ | {
            "PYTHONPATH": PYTHONPATH,
            "MQTT_BROKER_URL": self.broker.plain_url,
            "MQTT_USERNAME": self.broker.username,
            "MQTT_PASSWORD": self.broker.password,
            "BRIDGE_ENV_FILE": str(self.broker.env_file),
            "BRIDGE_STATE_DIR": str(self.directory / "bridge"),
            "CAN_INTERFACE": self._bus_settings.interface,
            "CAN_CHANNEL": self._bus_settings.channel,
            "CAN_PORT": str(self._bus_settings.port),
            "CAN_HOP_LIMIT": str(self._bus_settings.hop_limit),
        }
        log = (self.directory / "bridge.log").open("ab")
        with log:
            program = ["benchmarks/naive_bridge.py"] if self._old_bridge else ["-m", "services.can_bridge"]
            command = [sys.executable, *program]
            self._bridge = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
        if self._old_bridge:
            self._await_old_bridge()
        else:
            self.await_bridge("online")

    def _await_old_bridge(self) -> None:
        """It says nothing of itself: it is there when a frame of the bus arrives."""
        command = [*self.broker.tool("mosquitto_sub"), "-t", "can/inbound", "-C", "1", "-W", str(int(BRIDGE_TIMEOUT))]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as listener:
            while listener.poll() is None:
                assert self._bus is not None
                self._loop.call_soon_threadsafe(self._bus.send, 0x100, b"")
                time.sleep(0.05)
        assert listener.returncode == 0, (self.directory / "bridge.log").read_text()

    def stop_bridge(self) -> None:
        """End the bridge as systemd does."""
        if self._bridge is not None:
            self._bridge.terminate()
            self._bridge.wait(20)
            self._bridge = None

    def await_bridge(self, state: str) -> None:
        """Return when the bridge's retained status says ``state``."""
        end = time.monotonic() + BRIDGE_TIMEOUT
        while self.bridge_status().get("state") != state:
            assert time.monotonic() < end, (self.directory / "bridge.log").read_text()
            time.sleep(0.05)

    def bridge_status(self) -> dict[str, t.Any]:
        """What the bridge says of itself."""
        return self._retained("can/bridge/status")

    def await_versions(self) -> None:
        """Return when the bridge keeps what every module runs."""
        end = time.monotonic() + BRIDGE_TIMEOUT
        wanted = {hostname.lower(): board.version for hostname, board in self.boards.items()}
        while {key: value["version"] for key, value in self._retained("can/bridge/versions").items()} != wanted:
            assert time.monotonic() < end, self._retained("can/bridge/versions")
            time.sleep(0.05)

    def _retained(self, topic: str) -> dict[str, t.Any]:
        command = [*self.broker.tool("mosquitto_sub"), "-t", topic, "-C", "1", "-W", "2"]
        done = subprocess.run(command, capture_output=True, check=False)
        return t.cast("dict[str, t.Any]", json.loads(done.stdout or "{}"))

    # modules and images

    def add(
        self, type_: str = "gnss_module", *, version: str = "0.9.0", faults: Faults | None = None, **settings: t.Any
    ) -> str:
        """One more module; its hostname."""
        number = next(self._numbers)
        hostname = settings.pop("hostname", f"esp32-{number:06X}")
        known_ota = settings.pop("known_ota", True)
        defaults = {"address": f"{self._block}.{number}", "flash_rate": None, "boot_time": 0.2}
        image = make_image(version=version, project=type_[:31], chip=settings.get("chip", "esp32"), seed=number)
        wanted = ModuleSettings(hostname=hostname, type=type_, image=image, **{**defaults, **settings})
        board = EmulatedModule(wanted, bus=self._bus, faults=faults or Faults())
        self.call(board.start())
        self.boards[hostname] = board
        entry = {"hostname": hostname, "type": type_, "enabled": True, "address": wanted.address, "addr": wanted.addr}
        entry |= {"password": wanted.password, "target": wanted.target, "port": wanted.port if known_ota else None}
        self.entries.append(entry | {"ota": wanted.ota if known_ota else None})
        return str(hostname)

    def ship(
        self, type_: str, version: str, *, size: int = 65536, addr: int | None = None, **image: t.Any
    ) -> pathlib.Path:
        """Put an image into the firmware folder; its file."""
        folder = self.firmware / type_ if addr is None else self.firmware / type_ / f"addr{addr}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "firmware.bin"
        path.write_bytes(make_image(size=size, version=version, project=type_[:31], seed=hash(version) % 1000, **image))
        return path

    def until(self, hostname: str, condition: t.Callable[[EmulatedModule], bool], within: float = 20.0) -> None:
        """Wait for something on a module."""
        board = self.boards[hostname]
        self.call(board.until(lambda: condition(board), within))

    # rollouts

    def options(self, **changes: t.Any) -> dict[str, t.Any]:
        """A request; short time-outs, so that faults are found soon."""
        return {
            "modules": self.entries,
            "firmware_dir": str(self.firmware),
            "state_dir": str(self.state),
            "env_file": str(self.broker.env_file),
            "inhibit_file": str(self.directory / "no-update"),
            "ready_timeout": 6.0,
            "boot_timeout": 3.0,
            "upload_timeout": 60.0,
            **changes,
        }

    def roll_out(self, **changes: t.Any) -> list[dict[str, t.Any]]:
        """A whole rollout in a process of its own; its results, in the order of ``entries``."""
        outcome = self.process("run_here", **changes)
        assert "results" in outcome, outcome
        return t.cast("list[dict[str, t.Any]]", outcome["results"])

    def process(self, act: str, **changes: t.Any) -> dict[str, t.Any]:
        """Run one act of ``rollout.process`` in a process of its own; what it returned."""
        done = subprocess.run(
            [sys.executable, "-c", RUNNER, act],
            input=json.dumps(self.options(**changes)),
            env=os.environ | {"PYTHONPATH": PYTHONPATH},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return t.cast("dict[str, t.Any]", json.loads(done.stdout))

    def popen(self, act: str, **changes: t.Any) -> subprocess.Popen[str]:
        """Start one act of ``rollout.process``, to be killed or watched."""
        process = subprocess.Popen(
            [sys.executable, "-c", RUNNER, act],
            env=os.environ | {"PYTHONPATH": PYTHONPATH},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(self.options(**changes)))
        process.stdin.close()
        return process

    def record(self, hostname: str) -> dict[str, t.Any]:
        """What the state directory says of a module."""
        return t.cast("dict[str, t.Any]", json.loads((self.state / "modules" / f"{hostname.lower()}.json").read_text()))


def brief(result: collections.abc.Mapping[str, t.Any]) -> tuple[str, str | None, str | None]:
    """Status, code and proof of a result."""
    return result["status"], result["code"], result["proof"]
