"""The source of a release, as an operator keeps it: bundle.yml and what it names, all of it made on the spot.

    python -m virtual_rv release --directory release --version 1.0.0 --keys keys

writes firmware for every type of module, images of the Docker services from Debian packages, their compose file and
configuration, and a key to sign with beside the file that trusts it. The same version gives the same files.
"""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
import typing as t

import yaml

from .config import Config
from .firmware import write_firmware
from .service_image import SERVICES, Service, write_images

IDENTITY: t.Final = "releases@virtual-rv.example"
NAMESPACE: t.Final = "trailcurrent-deployment"
KEYGEN_TIMEOUT: t.Final = 30.0  # s
EPOCH_YEAR: t.Final = 2026

MOSQUITTO_CONF: t.Final = """\
listener 8883
cafile /mosquitto/keys/ca.pem
certfile /mosquitto/keys/server.crt
keyfile /mosquitto/keys/server.key
allow_anonymous false
password_file /mosquitto/config/passwords
"""
ENV_EXAMPLE: t.Final = "MQTT_USERNAME=\nMQTT_PASSWORD=\nTLS_CERT_HOSTNAME=trailcurrent01.local\n"


@dataclasses.dataclass(frozen=True)
class Release:
    """What is to be in it; ``size`` in bytes of each firmware image, None for the usual ones."""

    version: str
    size: int | None = None
    with_images: bool = True

    @property
    def counter(self) -> int:
        """Grows with the version."""
        major, minor, patch = (int(part) for part in self.version.split("."))
        return 10_000 * major + 100 * minor + patch + 1

    @property
    def released(self) -> str:
        """A day that is the version's own: a release's bytes hold no time of the machine that built it."""
        month, day = divmod(self.counter % 300, 28)
        return f"{EPOCH_YEAR}-{1 + month % 12:02}-{1 + day:02}T12:00:00Z"


def write_release(config: Config, folder: pathlib.Path, release: Release) -> pathlib.Path:
    """Write the release's source below ``folder``; return its bundle.yml.

    :raises PackageError: when Debian's packages for the images cannot be had
    :raises OSError: when the folder cannot be written
    """
    write_firmware(config, folder / "firmware", release.version, release.size)
    (folder / ".env.example").write_text(ENV_EXAMPLE)
    plan: dict[str, t.Any] = {
        "version": release.version,
        "counter": release.counter,
        "released": release.released,
        "firmware": {"folder": "firmware"},
        "files": [{"src": ".env.example", "dest": ".env.example"}],
    }
    if release.with_images:
        write_images(folder / "images", release.version)
        plan |= _services(folder)
    path = folder / "bundle.yml"
    path.write_text("---\n" + yaml.safe_dump(plan, sort_keys=False))
    return path


def _services(folder: pathlib.Path) -> dict[str, t.Any]:
    conf = folder / "config/mosquitto/mosquitto.conf"
    conf.parent.mkdir(parents=True, exist_ok=True)
    conf.write_text(MOSQUITTO_CONF)
    compose = {"name": "trailcurrent", "services": {service.name: _compose(service) for service in SERVICES}}
    (folder / "docker-compose.yml").write_text("---\n" + yaml.safe_dump(compose, sort_keys=False))
    images = [
        {"service": service.name, "name": service.image, "tar": f"images/{service.name}.tar"} for service in SERVICES
    ]
    return {"images": images, "compose": "docker-compose.yml", "config": "config"}


def _compose(service: Service) -> dict[str, t.Any]:
    return {"image": service.image, "restart": "unless-stopped", "ports": [f"{service.port}:{service.port}"]}


def write_keys(folder: pathlib.Path) -> pathlib.Path:
    """Have a signing key in ``folder``, and ``allowed_signers`` that trusts it; return the key's path.

    :raises OSError: when ssh-keygen is not there or refuses
    """
    key = folder / "release"
    if not key.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", IDENTITY, "-f", str(key)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=KEYGEN_TIMEOUT, check=False)
        if done.returncode:
            raise OSError(f"ssh-keygen could not make {key}: {done.stderr.strip()}")
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    (folder / "allowed_signers").write_text(f'{IDENTITY} namespaces="{NAMESPACE}" {public}\n')
    return key
