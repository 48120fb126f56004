"""A certificate authority and a server certificate for the broker, as a Pi has them (PROTOCOLS.md, Files)."""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import pathlib
import typing as t

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS: t.Final = 3650
SERVER_DAYS: t.Final = 825
"""Days: the longest that all TLS libraries accept (PROTOCOLS.md, Files on the Pi)."""
CLOCK_SKEW: t.Final = datetime.timedelta(hours=1)
NAMES: t.Final = ("localhost", "trailcurrent01.local")
ADDRESSES: t.Final = ("127.0.0.1", "::1")


@dataclasses.dataclass(frozen=True)
class Certificates:
    """Where the three files are."""

    ca: pathlib.Path
    certificate: pathlib.Path
    key: pathlib.Path


def make_certificates(
    folder: pathlib.Path, names: t.Sequence[str] = NAMES, addresses: t.Sequence[str] = ADDRESSES
) -> Certificates:
    """Write ``ca.pem``, ``server.crt`` and ``server.key`` into ``folder``; the CA's own key is kept nowhere.

    :raises OSError: when the folder cannot be written
    """
    files = Certificates(folder / "ca.pem", folder / "server.crt", folder / "server.key")
    authority_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _authority(authority_key)
    server = _server(server_key, authority, authority_key, names, addresses)
    files.ca.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    files.certificate.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    files.key.touch(mode=0o600)
    files.key.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = _name("Virtual RV CA")
    return (
        _builder(name, name, key, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _server(
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    names: t.Sequence[str],
    addresses: t.Sequence[str],
) -> x509.Certificate:
    subjects = [x509.DNSName(name) for name in names]
    numbers = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    return (
        _builder(_name("Virtual RV broker"), authority.subject, key, SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName([*subjects, *numbers]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
