"""A real Mosquitto with TLS and passwords, as an RV has it, for tests and benchmarks.

    broker = Mosquitto(directory)         # nothing runs yet
    broker.start()
    ... broker.url, broker.username, broker.password, broker.ca, broker.env_file ...
    broker.stop(); broker.start()         # same port; retained messages are gone, as in the field

It listens on a loopback address and a free port of its own; ``broker.plain_url`` is the same broker without TLS.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import pathlib
import shutil
import socket
import subprocess
import time
import typing as t

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ADDRESS: t.Final = "127.23.0.1"
USERNAME: t.Final = "trailcurrent"
PASSWORD: t.Final = "correct horse # $battery"
START_TIMEOUT: t.Final = 10.0  # seconds
DAY: t.Final = datetime.timedelta(days=1)


def free_port(address: str = ADDRESS) -> int:
    """A TCP port that nobody listens on at ``address`` now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


class Authority:
    """A CA of its own; ``directory/ca.pem`` is its certificate."""

    def __init__(self, directory: pathlib.Path, name: str = "TrailCurrent test CA") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.ca = directory / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            self._certificate(self._name, self._key.public_key(), now - 30 * DAY, now + 30 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, directory: pathlib.Path, names: t.Sequence[str], *, days: tuple[int, int] = (-1, 20)
    ) -> tuple[pathlib.Path, pathlib.Path]:
        """A server certificate for ``names``, valid from and to so many days from now: (certificate, key) files."""
        directory.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            self._certificate(subject, key.public_key(), now + days[0] * DAY, now + days[1] * DAY)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(issuer_key, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        cert_file, key_file = directory / "server.crt", directory / "server.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        key_file.write_bytes(key.private_bytes(*form))
        return cert_file, key_file

    def _certificate(
        self,
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey,
        start: datetime.datetime,
        end: datetime.datetime,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
        )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Mosquitto:
    """One broker with a user, TLS and (on another port) plain TCP; files in ``directory``.

    :param names: whom its certificate is made for; its address and localhost by default
    :param days: from and to which day from now its certificate is valid
    :param extra: more lines of mosquitto.conf
    """

    username = USERNAME
    password = PASSWORD

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        address: str = ADDRESS,
        names: t.Sequence[str] = (),
        days: tuple[int, int] = (-1, 20),
        extra: str = "",
    ) -> None:
        self.directory = directory
        self.address = address
        authority = Authority(directory)
        self.ca = authority.ca
        self.port, self.plain_port = free_port(address), free_port(address)
        self.url = f"mqtts://{address}:{self.port}"
        self.plain_url = f"mqtt://{address}:{self.plain_port}"
        self.env_file = directory / "env"
        self.env_file.write_text(
            f"MQTT_BROKER_URL={self.url}\nMQTT_USERNAME={USERNAME}\nMQTT_PASSWORD='{PASSWORD}'\n", encoding="utf-8"
        )
        self.log = directory / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._configure(authority.issue(directory / "keys", [*(names or (address, "localhost"))], days=days), extra)

    def __enter__(self) -> t.Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Run it; returns when it answers. Nothing when it runs."""
        if self._process is not None:
            return
        with self.log.open("ab") as log:
            command = [_mosquitto(), "-c", str(self.directory / "mosquitto.conf")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Mosquitto does not start: {self.log.read_text(errors='replace')}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it in good order; nothing when it does not run."""
        self._end("terminate")

    def kill(self) -> None:
        """End it as a crash does."""
        self._end("kill")

    def signal(self, number: int) -> None:
        """Send a signal to its process."""
        if self._process is not None:
            self._process.send_signal(number)

    def tool(self, name: str) -> list[str]:
        """``mosquitto_pub`` or ``mosquitto_sub`` with what it needs to enter."""
        where = ["-h", self.address, "-p", str(self.port), "--cafile", str(self.ca)]
        return [name, *where, "-u", USERNAME, "-P", PASSWORD]

    def _end(self, how: str) -> None:
        process, self._process = self._process, None
        if process is not None:
            getattr(process, how)()
            process.wait(START_TIMEOUT)

    def _answers(self) -> bool:
        for port in (self.port, self.plain_port):
            try:
                socket.create_connection((self.address, port), timeout=1).close()
            except OSError:
                return False
        return True

    def _configure(self, keys: tuple[pathlib.Path, pathlib.Path], extra: str) -> None:
        passwords = self.directory / "passwords"
        subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), USERNAME, PASSWORD], check=True)
        lines = [
            "user root",
            "per_listener_settings false",
            "allow_anonymous false",
            f"password_file {passwords}",
            "persistence false",
            f"listener {self.port} {self.address}",
            f"certfile {keys[0]}",
            f"keyfile {keys[1]}",
            f"listener {self.plain_port} {self.address}",
            extra,
        ]
        (self.directory / "mosquitto.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _mosquitto() -> str:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin") or "mosquitto"


@contextlib.contextmanager
def silent_listener(address: str = ADDRESS) -> t.Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server((address, 0)) as server:
        yield server.getsockname()[1]
