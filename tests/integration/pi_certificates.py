"""A folder that stands for a Pi with certificates, and the broker that serves them: for the role tls_certificates.

pi = Pi(pathlib.Path(folder, "home"))
pi.made_by_old_scripts(server_days=(-700, 20))     # nothing is there without it
pi.look()["server_reason"]                         # the role's own look at it
pi.played("--diff", tls_certificates_renew_ca=True)
with Broker(pi) as broker:
    broker.served(pi.keys / "ca.pem")
"""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import time
import typing as t

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.integration.broker import free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROBE = (ROOT / "roles/tls_certificates/files/probe.py").read_text()
NAME = "trailcurrent01.local"
BROKER_UID = 1883
DAY = datetime.timedelta(days=1)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PLAY = [
    {
        "hosts": "pi",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.import_role": {"name": "trailcurrent.fleet.tls_certificates"}}],
    }
]


def name(text: str) -> x509.Name:
    """A subject as people give it to an old script: in any order, twice the same attribute, with what needs quoting."""
    parts = [
        (NameOID.COUNTRY_NAME, "US"),
        (NameOID.ORGANIZATION_NAME, 'Räder, "RV" & Co\\'),
        (NameOID.COMMON_NAME, text),
    ]
    parts += [(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in ("b", "a")]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def signed(
    subject: x509.Name, key: Key, issuer_key: Key, days: tuple[float, float], alternative: t.Sequence[str] = ()
) -> bytes:
    """A certificate as the old scripts made them, as PEM; the CA's own when it has no alternative name."""
    issuer = name("TrailCurrent Root") if alternative else subject
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now + days[0] * DAY).not_valid_after(now + days[1] * DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=not alternative, path_length=None), critical=True)
    if alternative:
        names: list[x509.GeneralName] = [x509.DNSName(one) for one in alternative if ":" not in one]
        names += [x509.IPAddress(ipaddress.ip_address(one[3:])) for one in alternative if ":" in one]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def pem(key: Key) -> bytes:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    return key.private_bytes(*form)


@dataclasses.dataclass(frozen=True)
class Pi:
    """A folder that stands for a Pi's home."""

    home: pathlib.Path

    @property
    def keys(self) -> pathlib.Path:
        return self.home / "data/keys"

    def made_by_old_scripts(
        self,
        *,
        ca_days: tuple[float, float] = (-100, 3550),
        server_days: tuple[float, float] = (-100, 3550),
        alternative: tuple[str, ...] = (NAME,),
        key: Key | None = None,
    ) -> None:
        """A ten-year certificate without addresses, and keys that everybody reads."""
        ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), key or ec.generate_private_key(ec.SECP256R1())
        self.keys.mkdir(parents=True)
        (self.home / "local_code").mkdir()
        ca = signed(name("TrailCurrent Root"), ca_key, ca_key, ca_days)
        server = signed(name(NAME), server_key, ca_key, server_days, alternative)
        files = {"ca.key": pem(ca_key), "ca.crt": ca, "ca.pem": ca, "server.key": pem(server_key), "server.crt": server}
        for file, content in files.items():
            (self.keys / file).write_bytes(content)
            (self.keys / file).chmod(0o644)
        (self.home / "local_code/ca.pem").write_bytes(ca)

    def settings(self, **changes: t.Any) -> dict[str, t.Any]:
        return {
            "home": str(self.home), "user": "root", "trust_file": str(self.home / "none"),
            "keys": str(self.keys), "copies": [str(self.keys / "ca.pem"), str(self.home / "local_code/ca.pem")],
            "trust_bundle": str(self.home / "none"), "names": [NAME], "addresses": ["127.0.0.1", "::1"],
            "follow_addresses": True, "server_days": 820, "renew_days": 60, "back_days": 2, "ca_renew_days": 365,
            "renew_ca": False, "replace_ca": False, "broker_uid": BROKER_UID, **changes,
        }  # fmt: skip

    def look(self, **changes: t.Any) -> dict[str, t.Any]:
        """What the probe says of it."""
        command = [sys.executable, "-c", PROBE, json.dumps(self.settings(**changes))]
        answer: dict[str, t.Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return answer

    def play(self, *arguments: str, **variables: t.Any) -> subprocess.CompletedProcess[str]:
        host = {
            "ansible_connection": "local", "ansible_python_interpreter": sys.executable, "fleet_user": "root",
            "fleet_home": str(self.home), "fleet_hostname": "trailcurrent01", "tls_certificates_trust_store": False,
        }  # fmt: skip
        inventory = self.home.parent / "hosts.yml"
        inventory.write_text(yaml.safe_dump({"pi": {"hosts": {"pi": {**host, **variables}}}}))
        (self.home.parent / "play.yml").write_text(yaml.safe_dump(PLAY))
        command = [str(pathlib.Path(sys.executable).parent / "ansible-playbook"), "play.yml", "-i", "hosts.yml"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE")}
        environment = {**kept, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_LOCALHOST_WARNING": "0"}
        return subprocess.run(
            [*command, *arguments], cwd=self.home.parent, env=environment, check=False, capture_output=True, text=True
        )

    def played(self, *arguments: str, **variables: t.Any) -> str:
        """What a play that works prints."""
        done = self.play(*arguments, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def content(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.keys.iterdir())}

    def certificate(self, file: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.keys / file).read_bytes())


def belong(certificate: bytes, key: bytes) -> bool:
    public = serialization.load_pem_private_key(key, None).public_key()
    return x509.load_pem_x509_certificate(certificate).public_key() == public


class Broker:
    """The real Mosquitto with the Pi's files, as the user of its container."""

    def __init__(self, pi: Pi, uid: int = BROKER_UID) -> None:
        self.port = free_port("127.0.0.1")
        config = pi.home.parent / f"mosquitto-{uid}.conf"
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "persistence false"]
        lines += [f"certfile {pi.keys / 'server.crt'}", f"keyfile {pi.keys / 'server.key'}"]
        config.write_text("\n".join(lines) + "\n")
        mosquitto = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin") or "mosquitto"
        user = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        self.process = subprocess.Popen(
            ["setpriv", *user, mosquitto, "-c", str(config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def served(self, ca: pathlib.Path, host: str = NAME, *, strict: bool = False) -> bytes:
        """The certificate that a client which trusts ``ca`` gets, as DER; ``strict`` as Python 3.13 is of itself."""
        context = ssl.create_default_context(cafile=str(ca))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.verify_flags |= ssl.VERIFY_X509_STRICT if strict else 0
        deadline = time.monotonic() + 10
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                plain = socket.create_connection(("127.0.0.1", self.port), timeout=5)
            except ConnectionRefusedError:
                time.sleep(0.02)
                continue
            with plain, context.wrap_socket(plain, server_hostname=host) as link:
                return link.getpeercert(binary_form=True) or b""
        raise ConnectionError("the broker does not start")
