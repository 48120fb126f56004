"""What the real readers of the two environment files make of them (PROTOCOLS.md, Files on the Pi).

    with Readers(directory) as readers:
        readers.compose("A='x'\\n")        # {"A": "x"}: what a container gets, by Compose of Debian 13
        readers.systemd("A='x'\\n")        # the same by EnvironmentFile, once for each Debian
        dotenv_file(...), old_program(...), grep_and_cut(...)

Compose and systemd are the ones of the Debian hosts that Molecule uses (molecule/image/build --bare). Only names that
begin with ``V_`` are given back.
"""

from __future__ import annotations

import io
import json
import pathlib
import secrets
import subprocess
import sys
import time
import typing as t

import dotenv

ROOT: t.Final = pathlib.Path(__file__).resolve().parents[2]
SUITES: t.Final = ("trixie", "bookworm")
PREFIX: t.Final = "V_"
FLAGS: t.Final = (
    "--runtime=runc",
    "--systemd=always",
    "--privileged",
    "--cgroupns=private",
    "--network=none",
    "--ulimit=nofile=1024:4096",
    "--ulimit=nproc=4096:4096",
)
PATIENCE: t.Final = 60.0  # s; systemd of a container is up after two

Variables = dict[str, str]


def ours(variables: dict[str, str | None]) -> Variables:
    return {name: value or "" for name, value in variables.items() if name.startswith(PREFIX)}


def dotenv_file(text: str) -> Variables:
    """What python-dotenv reads."""
    return ours(dotenv.dotenv_values(stream=io.StringIO(text)))


def old_program(text: str) -> Variables:
    """The old programs' own reader: cut at the first ``=``, strip blanks, keep quotes."""
    lines = [line.strip() for line in text.split("\n")]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#") and "=" in line]
    return ours({name.strip(): value.strip() for name, _, value in pairs})


def grep_and_cut(path: pathlib.Path, name: str) -> str:
    """The old shell tools' way to one value."""
    command = f'grep "^{name}=" "$0" | cut -d= -f2-'
    return subprocess.run(["sh", "-c", command, path], capture_output=True, check=True).stdout.decode()[:-1]


class Readers:
    """A Debian host of each suite that runs, with its systemd; the first has Compose's program for this machine."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._hosts: list[str] = []
        self._compose = directory / "unpacked/usr/libexec/docker/cli-plugins/docker-compose"

    def __enter__(self) -> Readers:
        for suite in SUITES:
            build = [ROOT / "molecule/image/build", "--bare", suite]
            environment = {"TRAILCURRENT_PYTHON": sys.executable, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
            image = subprocess.run(build, env=environment, capture_output=True, text=True, check=True).stdout.strip()
            name = f"trailcurrent-env-{suite}-{secrets.token_hex(4)}"
            self._hosts.append(name)
            podman("run", "--detach", "--name", name, *FLAGS, image)
        for name in self._hosts:
            wait_for_systemd(name)
        self._unpack_compose()
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._hosts:
            podman("rm", "--force", "--time", "0", name)

    def _unpack_compose(self) -> None:
        package = podman("exec", self._hosts[0], "sh", "-c", "ls /opt/packages/docker-compose_*.deb").decode().strip()
        podman("cp", f"{self._hosts[0]}:{package}", str(self._directory / "compose.deb"))
        unpack = ["dpkg-deb", "--extract", self._directory / "compose.deb", self._directory / "unpacked"]
        subprocess.run(unpack, check=True)

    def compose(self, text: str) -> Variables:
        """What containers get, by ``${NAME}`` in docker-compose.yml and by ``env_file`` alike."""
        folder = self._directory / "project"
        folder.mkdir(exist_ok=True)
        (folder / ".env").write_text(text)
        names = [line.partition("=")[0] for line in text.splitlines() if line.startswith(PREFIX)]
        by_name = {"image": "x", "environment": {name: f"${{{name}}}" for name in names}}
        project = {"name": "x", "services": {"a": by_name, "b": {"image": "x", "env_file": ".env"}}}
        (folder / "docker-compose.yml").write_text(json.dumps(project))
        command = [self._compose, "config", "--format", "json"]
        clean = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
        done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        services = json.loads(done.stdout)["services"]
        a, b = (ours(services[name].get("environment") or {}) for name in "ab")
        assert a == b
        return {name: value.replace("$$", "$") for name, value in a.items()}  # its output is a docker-compose.yml

    def systemd(self, text: str) -> list[Variables]:
        """What a service gets, on each Debian."""
        return [self._service(name, text) for name in self._hosts]

    def _service(self, host: str, text: str) -> Variables:
        podman("exec", "--interactive", host, "sh", "-c", "cat >/run/environment", data=text.encode())
        run = ["systemd-run", "--quiet", "--wait", "--pipe", "--property=EnvironmentFile=/run/environment", "env", "-0"]
        output = podman("exec", host, *run).decode()
        return ours(dict(line.split("=", 1) for line in output.split("\0") if "=" in line))


def podman(*arguments: str, data: bytes | None = None) -> bytes:
    done = subprocess.run(["podman", *arguments], input=data, capture_output=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def wait_for_systemd(name: str) -> None:
    deadline = time.monotonic() + PATIENCE
    command = ["podman", "exec", name, "systemctl", "is-system-running", "--wait"]
    while subprocess.run(command, capture_output=True, check=False).stdout.strip() not in {b"running", b"degraded"}:
        assert time.monotonic() < deadline, f"systemd in {name} does not come up"
        time.sleep(0.2)
