"""The CAN bridge under full load: loss, latency, and its share of a core, beside a straightforward bridge.

    .venv/bin/python benchmarks/bridge.py [--quick] [--plain]

A real Mosquitto (TLS unless ``--plain``), python-can's udp_multicast bus on loopback, each bridge a process of its
own, in turns within one run. 4,000 frames of 8 bytes a second are all that 500 kbit/s carries. Latency is from the
sender's call to the receiver's, with everything between them. CPU is user + system time of the bridge's process.
"""

from __future__ import annotations

import argparse
import collections.abc
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import secrets
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t

ROOT: t.Final = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "collections")]

import can  # noqa: E402
import psutil  # noqa: E402
from can.interfaces.udp_multicast.utils import pack_message, unpack_message  # noqa: E402

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.can_mqtt import (  # noqa: E402
    TOPIC_INBOUND,
    TOPIC_OUTBOUND,
    Frame,
    decode_inbound,
    encode_outbound,
)
from tests.integration.broker import Mosquitto  # noqa: E402

GROUP: t.Final = "239.74.163.2"  # python-can's default group; hop limit 0 keeps it on this host
FROM_BUS_ID: t.Final = 0x100
TO_BUS_ID: t.Final = 0x200
HEAD: t.Final = (
    "| load                     | bridge    |  frames |   lost | median ms (rounds) |   min |  p99 ms |         CPU % |"
)
TICK: t.Final = 0.001  # seconds between two bursts of a sender
SETTLE: t.Final = 1.5  # seconds after the last frame until the receivers stop
QOS0: t.Final = 0x30  # first byte of a PUBLISH with QoS 0
CHUNK: t.Final = 65536  # bytes
Pipe = multiprocessing.connection.Connection


@dataclasses.dataclass(frozen=True)
class Load:
    """One row: frames a second in each direction, for so many seconds."""

    name: str
    from_bus: int
    to_bus: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one load: frames sent and lost, latencies in ms, CPU share of one core."""

    sent: int
    lost: int
    latencies: list[float]
    cpu: float


@dataclasses.dataclass(frozen=True)
class Ground:
    """Where a run takes place."""

    broker: Mosquitto
    url: str
    port: int


def stamp() -> bytes:
    """Eight bytes of data: the low 64 bits of the clock in ns, which also tell the frames apart."""
    return time.time_ns().to_bytes(8, "big")


def pace(rate: int, seconds: float, send: collections.abc.Callable[[], None]) -> int:
    """Call ``send`` at ``rate`` for ``seconds``; how often it was called."""
    start = time.perf_counter()
    sent, total = 0, int(rate * seconds)
    while sent < total:
        due = min(total, int((time.perf_counter() - start) * rate))
        while sent < due:
            send()
            sent += 1
        time.sleep(TICK)
    return sent


def open_bus(port: int) -> socket.socket:
    """A member of the multicast group, as python-can opens it."""
    bus = can.Bus(interface="udp_multicast", channel=GROUP, port=port, hop_limit=0)
    same = socket.socket(fileno=os.dup(bus.fileno()))
    bus.shutdown()
    same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024 * 1024)
    same.settimeout(0.2)
    return same


def enter(ground: Ground) -> socket.socket:
    """An MQTT connection without a library: the load must cost less than what it measures."""
    port = ground.broker.port if ground.url.startswith("mqtts") else ground.broker.plain_port
    raw: socket.socket = socket.create_connection((ground.broker.address, port))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if ground.url.startswith("mqtts"):
        context = ssl.create_default_context(cafile=ground.broker.ca)
        raw = context.wrap_socket(raw, server_hostname=ground.broker.address)
    fields = [secrets.token_hex(6), ground.broker.username, ground.broker.password]
    body = b"\x00\x04MQTT\x04\xc2\x00\x00" + b"".join(text(field) for field in fields)
    raw.sendall(packet(0x10, body))
    if raw.recv(4) != b"\x20\x02\x00\x00":
        raise SystemExit("the broker does not let the benchmark in")
    return raw


def text(value: str) -> bytes:
    """A string as MQTT writes it."""
    return len(value.encode()).to_bytes(2, "big") + value.encode()


def packet(kind: int, body: bytes) -> bytes:
    """One MQTT packet with its length before it."""
    length, size = b"", len(body)
    while True:
        size, digit = divmod(size, 128)
        length += bytes([digit | (128 if size else 0)])
        if not size:
            return bytes([kind]) + length + body


def packets(data: bytes) -> tuple[list[bytes], bytes]:
    """The bodies of the whole packets in ``data``, and what is left over."""
    bodies, at = [], 0
    while at + 2 <= len(data):
        size, shift, head = 0, 0, at + 1
        while head < len(data):
            size |= (data[head] & 127) << shift
            shift += 7
            head += 1
            if data[head - 1] < 128:
                break
        else:
            break
        if head + size > len(data):
            break
        bodies.append(data[head : head + size])
        at = head + size
    return bodies, data[at:]


def send_on_bus(ground: Ground, load: Load, pipe: Pipe) -> None:
    """A process: the modules, talking."""
    bus = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bus.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
    where = (GROUP, ground.port)
    message = can.Message(arbitration_id=FROM_BUS_ID, is_extended_id=False, data=bytes(8))

    def send() -> None:
        message.data[:] = stamp()
        bus.sendto(pack_message(message), where)

    pipe.recv()
    pipe.send(pace(load.from_bus, load.seconds, send))


def receive_on_bus(ground: Ground, pipe: Pipe) -> None:
    """A process: a module that listens to what comes from MQTT."""
    bus, latencies = open_bus(ground.port), []
    pipe.send("ready")
    while not pipe.poll():
        try:
            data = bus.recv(4096)
        except TimeoutError:
            continue
        now = time.time_ns()
        message = unpack_message(data)
        if message.arbitration_id == TO_BUS_ID:
            latencies.append((now - int.from_bytes(message.data, "big")) / 1e6)
    pipe.send(latencies)


def send_to_broker(ground: Ground, load: Load, pipe: Pipe) -> None:
    """A process: the web app, talking."""
    link = enter(ground)

    def send() -> None:
        link.sendall(packet(QOS0, text(TOPIC_OUTBOUND) + encode_outbound(Frame(TO_BUS_ID, stamp())).encode()))

    pipe.recv()
    pipe.send(pace(load.to_bus, load.seconds, send))


def receive_from_broker(ground: Ground, pipe: Pipe) -> None:
    """A process: the web app, listening."""
    link, latencies, left = enter(ground), [], b""
    link.sendall(packet(0x82, b"\x00\x01" + text(TOPIC_INBOUND) + b"\x00"))
    link.recv(5)
    link.settimeout(0.2)
    skip = len(text(TOPIC_INBOUND))
    pipe.send("ready")
    while not pipe.poll():
        try:
            left += link.recv(CHUNK)
        except TimeoutError:
            continue
        now = time.time_ns()
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # measure the bridge, not our delayed ACK
        bodies, left = packets(left)
        for body in bodies:
            frame = decode_inbound(body[skip:])
            if frame.identifier == FROM_BUS_ID:
                latencies.append((now - int.from_bytes(frame.data, "big")) / 1e6)
    pipe.send(latencies)


class Bridge:
    """A bridge under test, as a process."""

    def __init__(self, ground: Ground, command: list[str]) -> None:
        environment = os.environ | {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'collections'}",
            "MQTT_BROKER_URL": ground.url,
            "MQTT_USERNAME": ground.broker.username,
            "MQTT_PASSWORD": ground.broker.password,
            "MQTT_CA_CERT": str(ground.broker.ca),
            "CAN_INTERFACE": "udp_multicast",
            "CAN_CHANNEL": GROUP,
            "CAN_PORT": str(ground.port),
            "CAN_HOP_LIMIT": "0",
            "BRIDGE_STATE_DIR": str(ground.broker.directory / "state"),
        }
        self._log = (ground.broker.directory / "bridge.log").open("ab")
        self._process = subprocess.Popen(command, env=environment, stderr=self._log)
        time.sleep(2)

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    def memory(self) -> float:
        """MB resident."""
        return psutil.Process(self._process.pid).memory_info().rss / 1e6

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        self._log.close()


def start(target: collections.abc.Callable[..., None], *arguments: object) -> tuple[multiprocessing.Process, Pipe]:
    """A process and the pipe to it."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=target, args=(*arguments, theirs), daemon=True)
    process.start()
    return process, ours


def measure(ground: Ground, bridge: Bridge, load: Load) -> Outcome:
    """Put the load on the bridge and count."""
    listeners = [start(receive_on_bus, ground), start(receive_from_broker, ground)]
    for _, pipe in listeners:
        pipe.recv()
    rates = ((send_on_bus, load.from_bus), (send_to_broker, load.to_bus))
    senders = [start(target, ground, load) for target, rate in rates if rate]
    time.sleep(0.5)
    before, began = bridge.cpu(), time.perf_counter()
    for _, pipe in senders:
        pipe.send("go")
    sent = sum(pipe.recv() for _, pipe in senders)
    cpu = (bridge.cpu() - before) / (time.perf_counter() - began)
    time.sleep(SETTLE)
    latencies: list[float] = []
    for _, pipe in listeners:
        pipe.send("stop")
        latencies += pipe.recv()
    for process, _ in senders + listeners:
        process.join()
    return Outcome(sent, sent - len(latencies), latencies, cpu)


def row(name: str, load: Load, outcomes: list[Outcome]) -> str:
    """One line of the table; min/median/max over the rounds where three numbers stand together."""
    latencies = sorted(latency for outcome in outcomes for latency in outcome.latencies) or [float("nan")]
    cpu = sorted(outcome.cpu * 100 for outcome in outcomes)
    medians = sorted(statistics.median(o.latencies) for o in outcomes if o.latencies) or [float("nan")]
    return (
        f"| {load.name:<24} | {name:<9} | {sum(outcome.sent for outcome in outcomes):>7} "
        f"| {sum(outcome.lost for outcome in outcomes):>6} | {spread(medians, 2):>18} | {latencies[0]:>5.2f} "
        f"| {latencies[int(len(latencies) * 0.99)]:>7.2f} | {spread(cpu, 0):>14} |"
    )


def spread(values: list[float], digits: int) -> str:
    """min / median / max of sorted values."""
    return " / ".join(f"{value:.{digits}f}" for value in (values[0], statistics.median(values), values[-1]))


def loads(seconds: float) -> list[Load]:
    """The rows of the table."""
    return [
        Load("4,000/s from the bus", 4000, 0, seconds),
        Load("4,000/s to the bus", 0, 4000, seconds),
        Load("2,000/s each way", 2000, 2000, seconds),
        Load("400/s from the bus", 400, 0, seconds),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of 5 s instead of three of 30 s")
    parser.add_argument("--plain", action="store_true", help="without TLS")
    parser.add_argument("--only", choices=["ours", "straight"], help="one of the two bridges")
    parser.add_argument("--seconds", type=float, help="length of a round")
    parser.add_argument("--rounds", type=int, help="number of rounds")
    arguments = parser.parse_args()
    rounds, seconds = (1, 5.0) if arguments.quick else (3, 30.0)
    rounds, seconds = arguments.rounds or rounds, arguments.seconds or seconds
    commands = {
        "ours": [sys.executable, "-m", "services.can_bridge"],
        "straight": [sys.executable, str(ROOT / "benchmarks" / "naive_bridge.py")],
    }
    if arguments.only:
        commands = {arguments.only: commands[arguments.only]}
    transport = "plain TCP" if arguments.plain else "TLS"
    print(f"CAN bridge, {transport}, {rounds} round(s) of {seconds:g} s each, {os.cpu_count()} cores")
    print(HEAD)
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory, Mosquitto(pathlib.Path(directory)) as broker:
        url = broker.plain_url if arguments.plain else broker.url
        for load in loads(seconds):
            results: dict[str, list[Outcome]] = {name: [] for name in commands}
            for _ in range(rounds):
                for name, command in commands.items():
                    ground = Ground(broker, url, 20000 + secrets.randbelow(20000))
                    bridge = Bridge(ground, command)
                    results[name].append(measure(ground, bridge, load))
                    bridge.stop()
            for name, outcomes in results.items():
                print(row(name, load, outcomes), flush=True)


if __name__ == "__main__":
    main()
