"""What becomes of a renewed certificate where containers use it: real openssl and Mosquitto, and a stand-in for Docker.

The stand-in answers as Docker does, for containers that the test describes; restarted, they become what ``after`` says.
"""

from __future__ import annotations

import collections.abc
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import typing as t

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.integration import pi_certificates
from tests.integration.pi_certificates import NAME, ROOT, Broker, Pi, name, pem, signed

SERVE = (ROOT / "roles/tls_certificates/files/serve.py").read_text()
LONG_AGO = "2026-01-01T00:00:00.123456789Z"
DOCKER = f"""#!{sys.executable}
import json, pathlib, sys
place = pathlib.Path(__file__).with_name("containers.json")
known = json.loads(place.read_text())
act, names = sys.argv[1], [one for one in sys.argv[2:] if not one.startswith("-")]
if act == "ps":
    print(*known, sep=chr(10))
elif act == "inspect":
    print(json.dumps([known[one] for one in names]))
elif act == "restart":
    for one in names:
        known[one]["State"] |= known[one]["after"]
        known[one]["restarts"] += 1
    place.write_text(json.dumps(known))
"""
RUNS: dict[str, t.Any] = {"Running": True, "Restarting": False, "StartedAt": LONG_AGO}
LOOPS = {**RUNS, "Restarting": True}
DIES = {"Running": False}


class Docker:
    """The stand-in, in a folder that comes first in PATH."""

    def __init__(self, folder: pathlib.Path, keys: pathlib.Path) -> None:
        self.place, self.keys = folder / "containers.json", keys
        (folder / "docker").write_text(DOCKER)
        (folder / "docker").chmod(0o755)
        self.place.write_text("{}")

    def has(self, container: str, state: dict[str, t.Any], *, after: dict[str, t.Any], port: int = 0) -> None:
        ports = {"8883/tcp": [{"HostPort": str(port)}]} if port else {}
        known = self.known()
        known[container] = {
            "Name": f"/{container}", "State": state, "after": after, "restarts": 0,
            "RestartCount": 7 if state["Restarting"] else 0, "HostConfig": {"PortBindings": ports},
            "Mounts": [{"Source": str(self.keys / "server.crt")}],
        }  # fmt: skip
        self.place.write_text(json.dumps(known))

    def known(self) -> dict[str, t.Any]:
        return dict(json.loads(self.place.read_text()))


@pytest.fixture
def pi() -> collections.abc.Iterator[Pi]:
    """With a server certificate that is in order, and the one before it, which could still serve."""
    with tempfile.TemporaryDirectory(prefix="trailcurrent-tls-") as folder:
        pathlib.Path(folder).chmod(0o755)
        made = Pi(pathlib.Path(folder, "home"))
        made.made_by_old_scripts(server_days=(-700, 20))
        shutil.copy(made.keys / "server.crt", made.keys / "server.crt.old")
        (made.keys / "server.crt").write_bytes(again(made, (-1, 800)))
        yield made


def again(pi: Pi, days: tuple[float, float], *, key: pi_certificates.Key | None = None, ca: str = "ca.key") -> bytes:
    """Another certificate for the server's key."""
    read = pi_certificates.serialization.load_pem_private_key
    own = key or read((pi.keys / "server.key").read_bytes(), None)
    return signed(name(NAME), own, read((pi.keys / ca).read_bytes(), None), days, (NAME,))  # type: ignore[arg-type]


@pytest.fixture
def docker(pi: Pi, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Docker(tmp_path, pi.keys)


def serve(pi: Pi, docker: Docker, *, replaced: bool) -> subprocess.CompletedProcess[str]:
    settings = {"keys": str(pi.keys), "name": NAME, "timeout": 1, "replaced": replaced}
    command = [sys.executable, "-c", SERVE, json.dumps({**settings, "containers": sorted(docker.known())})]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("replaced", [False, True])
def test_container_that_kept_crashing_before_puts_no_old_certificate_back(
    pi: Pi, docker: Docker, *, replaced: bool
) -> None:
    new = (pi.keys / "server.crt").read_bytes()
    docker.has("crashes", LOOPS, after=DIES)
    with Broker(pi) as broker:
        broker.served(pi.keys / "ca.pem")
        docker.has("broker", RUNS, after={}, port=broker.port)
        done = serve(pi, docker, replaced=replaced)
    assert done.returncode == 0, done.stderr
    assert (pi.keys / "server.crt").read_bytes() == new
    assert not (pi.keys / "server.crt.old").exists(), "the new one serves"
    assert all(one["restarts"] == 1 for one in docker.known().values())


def test_container_that_crashed_a_moment_ago_is_not_taken_for_one_that_ran_well(pi: Pi, docker: Docker) -> None:
    docker.has("crashes", {**LOOPS, "Restarting": True}, after=DIES)
    known = docker.known()
    known["crashes"]["State"] |= {
        "Restarting": False,
        "StartedAt": pi_certificates.datetime.datetime.now(pi_certificates.datetime.UTC).isoformat(),
    }
    docker.place.write_text(json.dumps(known))
    assert serve(pi, docker, replaced=True).returncode == 0


def test_container_that_cannot_use_the_new_certificate_gets_the_old_one_back(pi: Pi, docker: Docker) -> None:
    old = (pi.keys / "server.crt.old").read_bytes()
    docker.has("broker", RUNS, after=DIES)
    done = serve(pi, docker, replaced=True)
    assert done.returncode == 1
    assert "broker does not keep running; the old certificate is back in its place" in done.stderr
    assert (pi.keys / "server.crt").read_bytes() == old
    assert docker.known()["broker"]["restarts"] == 2


def stranger(pi: Pi) -> bytes:
    (pi.keys / "other.key").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    return again(pi, (-700, 20), ca="other.key")


OLD: dict[str, collections.abc.Callable[[Pi], bytes]] = {
    "expired": lambda pi: again(pi, (-700, -1)),
    "of another key": lambda pi: again(pi, (-700, 20), key=ec.generate_private_key(ec.SECP256R1())),
    "of another CA": stranger,
    "cut off": lambda pi: again(pi, (-700, 20))[:200],
}


@pytest.mark.parametrize("old", OLD.values(), ids=OLD)
def test_old_certificate_that_cannot_serve_is_not_put_back(
    pi: Pi, docker: Docker, old: collections.abc.Callable[[Pi], bytes]
) -> None:
    new = (pi.keys / "server.crt").read_bytes()
    (pi.keys / "server.crt.old").write_bytes(old(pi))
    docker.has("broker", RUNS, after=DIES)
    done = serve(pi, docker, replaced=True)
    assert done.returncode == 1
    assert "does not keep running" in done.stderr
    assert (pi.keys / "server.crt").read_bytes() == new


def test_old_certificate_of_an_earlier_run_is_not_put_back(pi: Pi, docker: Docker) -> None:
    new = (pi.keys / "server.crt").read_bytes()
    docker.has("broker", RUNS, after=DIES)
    assert serve(pi, docker, replaced=False).returncode == 1
    assert (pi.keys / "server.crt").read_bytes() == new


ROLE = {"ansible.builtin.import_role": {"name": "trailcurrent.fleet.tls_certificates"}}
BLOCK = {
    "block": [ROLE, {"ansible.builtin.meta": "flush_handlers"}, {"ansible.builtin.debug": {"msg": "gone on"}}],
    "rescue": [{"ansible.builtin.debug": {"msg": "rescued {{ ansible_failed_result.code }}"}}],
}


@pytest.mark.parametrize("serves", [True, False], ids=["it serves", "it does not"])
def test_new_certificate_that_is_not_served_is_the_result_where_handlers_are_flushed(
    pi: Pi, docker: Docker, monkeypatch: pytest.MonkeyPatch, *, serves: bool
) -> None:
    """As setup.yml flushes them, in its block."""
    monkeypatch.setattr(pi_certificates, "PLAY", [{"hosts": "pi", "gather_facts": False, "tasks": [BLOCK]}])
    shutil.move(pi.keys / "server.crt.old", pi.keys / "server.crt")
    before = (pi.keys / "server.crt").read_bytes()
    docker.has("broker", RUNS, after={} if serves else DIES)
    told = pi.played(tls_certificates_restart_timeout=1)
    assert ("gone on" in told, "rescued service_failed" in told) == (serves, not serves)
    assert ((pi.keys / "server.crt").read_bytes() == before) is not serves
    assert not (pi.keys / "server.crt.old").exists()
