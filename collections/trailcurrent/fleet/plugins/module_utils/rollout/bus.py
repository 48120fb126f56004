"""The RV's CAN bus through its MQTT broker (PROTOCOLS.md, CAN over MQTT)."""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import json
import re
import time
import typing as t

from ..errors import FleetError
from ..formats import can_mqtt, esp_image
from ..formats.bridge_status import check_status, parse_status
from ..formats.hostname import ModuleName, parse_hostname
from ..links.mqtt_session import MqttSession
from .model import Reported
from .preconditions import Precondition

RETAINED_WAIT: t.Final = 0.5  # s; a broker sends what it retains right after the SUBACK, an old bridge retains nothing
LATEST: t.Final = float(1 << 33)  # epoch s; a later time is no time (PROTOCOLS.md says nothing of the year 2242)
_IDENTIFIER = re.compile(rb'"identifier"\s*:\s*"0[xX]0*([0-9a-fA-F]+)"')


class MqttBus:
    """``ports.Bus`` over a connected session. Messages come on paho's thread and are handed to the loop."""

    def __init__(self, session: MqttSession, conditions: collections.abc.Sequence[Precondition] = ()) -> None:
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._conditions = conditions
        self._values: dict[int, tuple[float, object]] = {}
        self._reports: dict[str, Reported] = {}
        self._kept: dict[str, Reported] = {}  # as the bridge keeps them
        self._mark = 0
        self._news: dict[str, tuple[int, Reported]] = {}  # what came since we listen, with its mark
        self._waiting: dict[str, list[asyncio.Future[Reported]]] = {}
        self._status: dict[str, t.Any] | None = None
        self._heard = asyncio.Event()
        self._fresh_value = asyncio.Event()
        watched = {condition.can_id for condition in conditions if condition.can_id is not None}
        self._watched = {b"%x" % identifier for identifier in watched | {can_mqtt.ID_VERSION}}

    async def listen(self) -> None:
        """Subscribe, and wait for what the broker retains."""
        topics = {can_mqtt.TOPIC_INBOUND, can_mqtt.TOPIC_STATUS, can_mqtt.TOPIC_VERSIONS}
        topics |= {condition.topic for condition in self._conditions if condition.topic}
        await asyncio.to_thread(self._session.subscribe, sorted(topics), self._received)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._heard.wait(), RETAINED_WAIT)

    def _received(self, topic: str, payload: bytes, retained: bool) -> None:
        if topic == can_mqtt.TOPIC_INBOUND and not self._concerns(payload):
            return  # telemetry: thousands a second, none of them ours
        with contextlib.suppress(RuntimeError):  # the loop is closed: the run is over
            self._loop.call_soon_threadsafe(self._take, topic, payload, retained)

    def _concerns(self, payload: bytes) -> bool:
        found = _IDENTIFIER.search(payload)
        return found is not None and found[1].lower() in self._watched

    def _take(self, topic: str, payload: bytes, retained: bool) -> None:
        if topic == can_mqtt.TOPIC_INBOUND:
            self._take_frame(payload)
        elif topic == can_mqtt.TOPIC_STATUS:
            self._status = parse_status(payload) or self._status
        elif topic == can_mqtt.TOPIC_VERSIONS:
            self._take_versions(payload, retained=retained)
            self._heard.set()
        if not retained:  # a retained value has no age
            for index, condition in enumerate(self._conditions):
                if condition.topic == topic:
                    self._take_value(index, condition.value_of_payload(payload))

    def _take_frame(self, payload: bytes) -> None:
        try:
            frame = can_mqtt.decode_inbound(payload)
        except FleetError:
            return  # a hostile or broken sender's; the bridge counts and names those
        report = can_mqtt.version_report(frame)
        if report is not None:
            self._take_report(report.name.key, Reported(report.version, time.time()))
        for index, condition in enumerate(self._conditions):
            if condition.can_id == frame.identifier:
                self._take_value(index, condition.value_of_frame(frame.data))

    def _take_versions(self, payload: bytes, *, retained: bool) -> None:
        """What the bridge keeps. News only where the broker was away: else each report came by itself before."""
        for key, value in (_json_object(payload) or {}).items():
            report = _reported(value)
            with contextlib.suppress(FleetError):
                if report is not None and key == parse_hostname(key).key:
                    changed = self._kept.get(key) != report
                    self._kept[key] = report
                    if retained and changed and self._heard.is_set():
                        self._take_report(key, report)
                    else:
                        self._reports[key] = report

    def _take_report(self, key: str, report: Reported) -> None:
        self._reports[key] = report
        self._mark += 1
        self._news[key] = (self._mark, report)
        for waiting in self._waiting.get(key, ()):
            if not waiting.done():
                waiting.set_result(report)

    def kept_at(self, name: ModuleName) -> float | None:
        """See ``ports.Bus``."""
        kept = self._kept.get(name.key)
        return kept.at if kept else None

    def mark(self) -> int:
        """See ``ports.Bus``."""
        return self._mark

    def last_reports(self) -> collections.abc.Mapping[str, Reported]:
        """See ``ports.Bus``."""
        return dict(self._reports)

    async def check(self) -> None:
        """See ``ports.Bus``. A bridge of the old kind has no status: nothing is known to be broken."""
        check_status(self._status)

    async def trigger(self, name: ModuleName) -> None:
        """See ``ports.Bus``."""
        payload = can_mqtt.encode_outbound(can_mqtt.ota_trigger(name))
        await asyncio.to_thread(self._session.publish, can_mqtt.TOPIC_OUTBOUND, payload, qos=1)

    async def report(self, name: ModuleName, since: int) -> Reported:
        """See ``ports.Bus``."""
        mark, known = self._news.get(name.key, (0, None))
        if known is not None and mark > since:
            return known
        waiting: asyncio.Future[Reported] = self._loop.create_future()
        self._waiting.setdefault(name.key, []).append(waiting)
        try:
            return await waiting
        finally:
            self._waiting[name.key].remove(waiting)

    async def condition(self, index: int) -> object:
        """See ``ports.Bus``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._conditions[index].max_age):
                while (value := self._fresh(index)) is None:
                    self._fresh_value.clear()
                    await self._fresh_value.wait()
                return value
        return None

    def _fresh(self, index: int) -> object:
        at, value = self._values.get(index, (float("-inf"), None))
        return value if time.monotonic() - at <= self._conditions[index].max_age else None

    def _take_value(self, index: int, value: object) -> None:
        self._values[index] = (time.monotonic(), value)
        self._fresh_value.set()


def _json_object(payload: bytes) -> dict[str, t.Any] | None:
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _reported(value: object) -> Reported | None:
    at = value.get("at") if isinstance(value, dict) else None
    if not isinstance(value, dict) or isinstance(at, bool) or not isinstance(at, float | int) or not 0 <= at < LATEST:
        return None
    version = esp_image.parse_version(str(value.get("version")))
    return Reported(version, float(at)) if version else None
