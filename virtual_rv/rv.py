"""One virtual RV in one process: certificates, broker, database, bus, modules, and the real bridge as its child."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import secrets
import sys
import typing as t

import can
from amqtt.errors import BrokerError
from pymongo.errors import PyMongoError

from .advertiser import Advertiser
from .broker import Broker
from .bus import CanBus
from .certificates import make_certificates
from .config import Config, read_faults
from .control import ControlServer, Json
from .database import Database, seal
from .module import EmulatedModule
from .settings import Faults

ROOT: t.Final = pathlib.Path(__file__).resolve().parent.parent
USERNAME: t.Final = "trailcurrent"
WIFI_PASSWORD: t.Final = "virtual horse battery"
TOPIC_STATUS: t.Final = "can/bridge/status"
TOPIC_VERSIONS: t.Final = "can/bridge/versions"
BRIDGE_TIMEOUT: t.Final = 20.0
"""Seconds in which the bridge must be online, and have heard every module's version."""
BRIDGE_STOP_TIMEOUT: t.Final = 5.0
"""Seconds from SIGTERM to SIGKILL for the bridge."""


class StartError(Exception):
    """A part of the RV did not start; the text names it and where to read more."""


class Modules:
    """The emulated modules of one RV on one bus."""

    def __init__(self, config: Config) -> None:
        self.bus = CanBus(config.bus)
        self._advertiser = Advertiser(config.mdns) if config.mdns else None
        self._modules = [
            EmulatedModule(module.settings, bus=self.bus, faults=module.faults, advertiser=self._advertiser)
            for module in config.modules
        ]

    async def start(self) -> None:
        """Switch all of them on; return when they have booted.

        :raises OSError: when bus or mDNS cannot be had
        """
        await self.bus.start()
        if self._advertiser:
            await self._advertiser.start()
        await asyncio.gather(*(module.start() for module in self._modules))

    async def stop(self) -> None:
        """Switch all of them off."""
        await asyncio.gather(*(module.stop() for module in self._modules))
        if self._advertiser:
            await self._advertiser.stop()
        await self.bus.stop()

    async def handle(self, request: Json) -> Json:
        """Answer a request of control.py.

        :raises ValueError: when it is none, or names a module or fault that is unknown
        """
        match request.get("command"):
            case "status":
                return {"modules": [_status(module) for module in self._modules]}
            case "faults":
                self._set_faults(request["faults"])
            case "power_cycle":
                await asyncio.gather(*(module.power_cycle() for module in self._named(request["hostnames"])))
            case unknown:
                raise ValueError(f"unknown command {unknown!r}")
        return {}

    def reporting(self) -> set[str]:
        """Return the names, in the bridge's form, of the modules that have reported a version by now."""
        return {module.settings.hostname.lower() for module in self._modules if module.reports}

    def describe(self) -> list[Json]:
        """Return the modules as `rv.json` lists them."""
        keys = ("hostname", "type", "ota", "address", "port", "target", "addr")
        return [
            {key: getattr(module.settings, key) for key in keys} | {"version": module.version}
            for module in self._modules
        ]

    def _set_faults(self, values: Json) -> None:
        faults = read_faults(values, [module.settings.hostname for module in self._modules])
        for module in self._modules:
            module.set_faults(faults[module.settings.hostname])

    def _named(self, hostnames: t.Sequence[str]) -> list[EmulatedModule]:
        by_name = {module.settings.hostname: module for module in self._modules}
        unknown = [name for name in hostnames if name not in by_name]
        if unknown:
            raise ValueError(f"no module is called {', '.join(unknown)}")
        return [by_name[name] for name in hostnames]


class VirtualRv:
    """A whole RV in one directory, from `start` to `stop`. `handle` answers the command line.

    :param folder: where its files are (INTERFACES: `rv.json`, `env`, `ca.pem`, `hosts.json`, `log/`)
    :param with_bridge: whether the CAN bridge runs
    """

    def __init__(self, folder: pathlib.Path, config: Config, *, with_bridge: bool = True) -> None:
        self._folder = folder
        self._password = secrets.token_urlsafe(16)
        self._encryption_key = secrets.token_bytes(32)
        self._config = config
        self._with_bridge = with_bridge
        self._modules = Modules(config)
        self._bridge: asyncio.subprocess.Process | None = None
        self._stack = contextlib.AsyncExitStack()
        self.stopped = asyncio.Event()
        """Set when somebody asked it to stop."""

    async def start(self) -> None:
        """Start every part; return when all of them answer.

        :raises StartError: when one does not
        """
        try:
            await self._start()
        except (OSError, can.CanError, BrokerError, PyMongoError) as error:
            raise StartError(f"the virtual RV did not start: {error}") from error

    async def stop(self) -> None:
        """End every part, the last one first."""
        await self._stack.aclose()

    async def handle(self, request: Json) -> Json:
        """Answer a request of control.py."""
        if request.get("command") == "stop":
            self.stopped.set()
            return {}
        answer = await self._modules.handle(request)
        if request.get("command") == "status":
            answer["bridge"] = self._bridge_state()
        return answer

    async def _start(self) -> None:
        broker = Broker(make_certificates(self._folder), USERNAME, self._password)
        await broker.start()
        self._stack.push_async_callback(broker.stop)
        (self._folder / "database").mkdir(exist_ok=True)
        database = Database(self._folder / "database")
        database.start()
        self._stack.callback(database.stop)
        wifi = seal(WIFI_PASSWORD, self._encryption_key)
        database.write_settings([module.entry for module in self._config.modules], wifi)
        self._write_env(broker, database)
        if self._with_bridge:
            await self._start_bridge(broker)
        self._stack.push_async_callback(self._modules.stop)
        await self._modules.start()
        if self._with_bridge:
            await self._until(lambda: self._heard(broker), "the bridge has not heard every module's version")
        self._write_description(broker, database)
        control = ControlServer(self._folder, self.handle)
        await control.start()
        self._stack.push_async_callback(control.stop)

    # the bridge

    async def _start_bridge(self, broker: Broker) -> None:
        bus = self._modules.bus.settings
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'collections'}",
            "BRIDGE_ENV_FILE": str(self._folder / "env"),
            "BRIDGE_STATE_DIR": str(self._folder / "bridge"),
            "MQTT_BROKER_URL": broker.url,
            "MQTT_USERNAME": USERNAME,
            "MQTT_PASSWORD": self._password,
            "MQTT_CA_CERT": str(self._folder / "ca.pem"),
            "CAN_INTERFACE": bus.interface,
            "CAN_CHANNEL": bus.channel,
            "CAN_PORT": str(bus.port),
            "CAN_HOP_LIMIT": str(bus.hop_limit),
        }
        (self._folder / "bridge").mkdir(exist_ok=True)
        with (self._folder / "log" / "bridge.log").open("ab") as log:
            self._bridge = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.can_bridge", cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        self._stack.push_async_callback(self._stop_bridge, self._bridge)
        await self._until(lambda: self._online(broker), "the bridge is not online")

    async def _stop_bridge(self, bridge: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            bridge.terminate()
        try:
            async with asyncio.timeout(BRIDGE_STOP_TIMEOUT):
                await bridge.wait()
        except TimeoutError:
            bridge.kill()
            await bridge.wait()

    def _bridge_state(self) -> str:
        if self._bridge is None:
            return "none"
        return "running" if self._bridge.returncode is None else f"ended with {self._bridge.returncode}"

    async def _until(self, condition: t.Callable[[], bool], failure: str) -> None:
        """Wait for a condition on the bridge.

        :raises StartError: when it ended, or did not meet the condition in time
        """
        deadline = asyncio.get_running_loop().time() + BRIDGE_TIMEOUT
        for _ in iter(condition, True):
            ended = self._bridge is not None and self._bridge.returncode is not None
            if ended or asyncio.get_running_loop().time() > deadline:
                raise StartError(f"{failure} ({self._bridge_state()}); read {self._folder / 'log' / 'bridge.log'}")
            await asyncio.sleep(0.05)

    def _online(self, broker: Broker) -> bool:
        return _retained(broker, TOPIC_STATUS).get("state") == "online"

    def _heard(self, broker: Broker) -> bool:
        return self._modules.reporting() <= set(_retained(broker, TOPIC_VERSIONS))

    # files

    def _write_env(self, broker: Broker, database: Database) -> None:
        lines = {
            "MQTT_BROKER_URL": broker.url,
            "MQTT_USERNAME": USERNAME,
            "MQTT_PASSWORD": self._password,
            "TLS_CERT_HOSTNAME": "localhost",
            "MONGODB_DATABASE": database.name,
            "ENCRYPTION_KEY": self._encryption_key.hex(),
        }
        path = self._folder / "env"
        path.touch(mode=0o600)
        path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))

    def _write_description(self, broker: Broker, database: Database) -> None:
        modules = self._modules.describe()
        bus = dataclasses.asdict(self._modules.bus.settings)
        description = {
            "mqtt_url": broker.url,
            "mqtt_username": USERNAME,
            "ca": str(self._folder / "ca.pem"),
            "mongodb_uri": database.uri,
            "mongodb_database": database.name,
            "env_file": str(self._folder / "env"),
            "can": bus,
            "modules": modules,
        }
        addresses = {module["hostname"]: module["address"] for module in modules}
        (self._folder / "rv.json").write_text(json.dumps(description, indent=2) + "\n")
        (self._folder / "hosts.json").write_text(json.dumps(addresses, indent=2) + "\n")


def _status(module: EmulatedModule) -> Json:
    settings = module.settings
    nothing = Faults()
    set_faults = {
        field.name: getattr(module.faults, field.name)
        for field in dataclasses.fields(Faults)
        if getattr(module.faults, field.name) != getattr(nothing, field.name)
    }
    return {
        "hostname": settings.hostname,
        "type": settings.type,
        "ota": settings.ota,
        "address": f"{settings.address}:{settings.port}",
        "state": module.state.value,
        "version": module.version,
        "uploads": module.uploads,
        "attempts": module.attempts,
        "triggers": module.triggers,
        "erasures": module.erasures,
        "wifi": module.wifi.status(),
        "faults": set_faults,
    }


def _retained(broker: Broker, topic: str) -> Json:
    try:
        content = json.loads(broker.retained(topic) or b"{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
