"""The CAN codec beside a straightforward one: format-string bits for each byte, `int(..., 2)` back, json around both.

    .venv/bin/python benchmarks/codec.py [--rounds N] [--frames N]

Both do the same work on the same frames, in turns within one run, and must agree on every message first. The
straightforward one checks nothing; ours also rejects what is malformed with a reason. A full 500 kbit/s bus carries
about 4,000 frames of 8 bytes a second, up to 9,000 short ones (PROTOCOLS.md, CAN over MQTT).
"""

from __future__ import annotations

import argparse
import collections.abc
import dataclasses
import json
import pathlib
import platform
import random
import statistics
import sys
import time
import typing as t

ROOT: t.Final = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "collections")]

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.can_mqtt import (  # noqa: E402
    Frame,
    decode_inbound,
    decode_outbound,
    encode_inbound,
    encode_outbound,
)

HEAD: t.Final = "| what             | bytes | codec           | us min | us median | us max | frames/s |    x |"
MICROSECONDS: t.Final = 1e6
SIZES: t.Final = (8, 1)  # bytes of data in a frame

Work = collections.abc.Callable[[t.Any], object]


def naive_encode(frame: Frame) -> str:
    """The bits of each byte by a format string."""
    data = [[int(bit) for bit in f"{byte:08b}"] for byte in frame.data]
    message: dict[str, t.Any] = {"identifier": hex(frame.identifier), "data_length_code": len(data), "data": data}
    return json.dumps({**message, "extd": 0, "rtr": 0, "ss": 0, "self": 0})


def naive_encode_inbound(frame: Frame) -> str:
    """The same for what comes from the bus."""
    data = [[int(bit) for bit in f"{byte:08b}"] for byte in frame.data]
    message: dict[str, t.Any] = {"identifier": f"0x{frame.identifier:03x}", "data_length_code": len(data)}
    return json.dumps({**message, "data": data, "timestamp": frame.timestamp})


def naive_decode(payload: bytes) -> Frame:
    """Each byte by joining its bits; nothing is checked."""
    message = json.loads(payload)
    lists = message["data"][: message["data_length_code"]]
    data = bytes(int("".join(str(int(bit)) for bit in bits), 2) for bits in lists)
    return Frame(int(message["identifier"], 16), data, message.get("timestamp", 0.0))


@dataclasses.dataclass(frozen=True)
class Job:
    """One codec at one work, on the inputs that both codecs get."""

    what: str
    size: int
    codec: str
    work: Work
    inputs: list[t.Any]


def frames_of(size: int, count: int) -> list[Frame]:
    """Frames as a busy bus carries them, the same in every run."""
    source = random.Random(size)
    return [Frame(source.randrange(0x800), source.randbytes(size), 1767225600 + 0.25 * n) for n in range(count)]


def jobs_of(size: int, count: int) -> list[Job]:
    """Ours and the straightforward one, side by side, for frames of one size."""
    frames = frames_of(size, count)
    outbound = [encode_outbound(frame).encode() for frame in frames]
    inbound = [encode_inbound(frame).encode() for frame in frames]
    pairs: list[tuple[str, Work, Work, list[t.Any]]] = [
        ("encode outbound", naive_encode, encode_outbound, frames),
        ("encode inbound", naive_encode_inbound, encode_inbound, frames),
        ("decode outbound", naive_decode, decode_outbound, outbound),
        ("decode inbound", naive_decode, decode_inbound, inbound),
    ]
    for what, naive, ours, inputs in pairs:
        differing = [item for item in inputs if naive(item) != ours(item)]
        if differing:
            raise SystemExit(f"the two codecs disagree: {what} of {differing[0]!r}")
    return [
        Job(what, size, codec, work, inputs)
        for what, naive, ours, inputs in pairs
        for codec, work in (("straightforward", naive), ("ours", ours))
    ]


def seconds_of(job: Job) -> float:
    """How long the job takes once."""
    work = job.work
    start = time.perf_counter()
    for item in job.inputs:
        work(item)
    return time.perf_counter() - start


def measure(jobs: list[Job], rounds: int) -> list[list[float]]:
    """Microseconds for one frame, for each job and round; the jobs take turns, so a slow moment hits all alike."""
    found: list[list[float]] = [[] for _ in jobs]
    for _ in range(rounds):
        for times, job in zip(found, jobs, strict=True):
            times.append(seconds_of(job) / len(job.inputs) * MICROSECONDS)
    return found


def print_table(jobs: list[Job], found: list[list[float]]) -> None:
    """One row for each job; the last column is how many times as fast as the straightforward codec."""
    print(HEAD)
    print("|".join("-" * len(cell) for cell in HEAD.split("|")))
    naive = 0.0
    for job, times in zip(jobs, found, strict=True):
        middle = statistics.median(times)
        naive = middle if job.codec == "straightforward" else naive
        print(
            f"| {job.what:<16} | {job.size:>5} | {job.codec:<15} | {min(times):>6.2f} | {middle:>9.2f} "
            f"| {max(times):>6.2f} | {MICROSECONDS / middle:>8,.0f} | {naive / middle:>4.1f} |"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each job (9)")
    parser.add_argument("--frames", type=int, default=5000, help="frames in a round (5000)")
    options = parser.parse_args()
    jobs = [job for size in SIZES for job in jobs_of(size, options.frames)]
    print(f"{options.rounds} rounds of {options.frames} frames, Python {platform.python_version()}, one core\n")
    print_table(jobs, measure(jobs, options.rounds))


if __name__ == "__main__":
    main()
