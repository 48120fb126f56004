"""Restart the containers that use the certificates, and prove that they serve the new one: runs on the Pi.

Usage: ``python3 -c <this text> SETTINGS`` with JSON: ``keys`` (folder), ``name`` (the RV's), ``containers``,
``timeout`` (s) and ``replaced`` (whether this run replaced ``server.crt``). A mounted file that was replaced is seen by
a container only after its restart (PROTOCOLS.md, Docker services), a signal is not enough. Where containers that ran
well before do not serve the new certificate in time, the old one is put back, if it can still serve.
"""

from __future__ import annotations

import datetime
import json
import pathlib
import socket
import ssl
import subprocess
import sys
import time
import typing as t

HANDSHAKE_TIMEOUT = 5  # s
SETTLING = 3  # s
# One that Docker started again counts when it has run for as long as Docker's longest pause between two starts.
STEADY = 60  # s
PAUSE = 0.5  # s between two looks


def docker(*arguments: str) -> str:
    """What docker prints; an error ends the program with docker's own last line."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"docker {arguments[0]} failed ({done.stderr.strip().splitlines()[-1:]})")
    return done.stdout


def ports(container: dict[str, t.Any], keys: pathlib.Path) -> set[int]:
    """The published TCP ports of a container that uses the server's certificate; none for another one."""
    sources = {mount.get("Source") for mount in container.get("Mounts", [])}
    if not sources & {str(keys), str(keys / "server.crt")}:
        return set()
    # As configured: one that does not run has no others.
    published = container["HostConfig"]["PortBindings"] or {}
    bindings = [binding for name, bound in published.items() if name.endswith("/tcp") for binding in bound or []]
    return {int(binding["HostPort"]) for binding in bindings if binding["HostPort"].isdecimal()} - {0}


def serves(port: int, keys: pathlib.Path, name: str) -> bool:
    """Whether a port of this host serves the certificate in ``server.crt``, trusted by the CA."""
    context = ssl.create_default_context(cafile=str(keys / "ca.crt"))
    # Python 3.13 is strict, and would refuse the CA of an old script, which has no key usage.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    wanted = ssl.PEM_cert_to_DER_cert(certificate(keys / "server.crt"))
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=HANDSHAKE_TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=name) as link,
        ):
            return link.getpeercert(binary_form=True) == wanted
    except OSError:
        return False


def certificate(path: pathlib.Path) -> str:
    """The certificate in a file, without what people may have written above it."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return text[text.index("-----BEGIN CERTIFICATE-----") :]


def inspected(names: list[str]) -> list[dict[str, t.Any]]:
    """What Docker knows of containers."""
    return list(json.loads(docker("inspect", *names))) if names else []


def runs_for(state: dict[str, t.Any], seconds: float) -> bool:
    """Whether a container has been running for so long: one that ends at once is started again and again."""
    started = datetime.datetime.fromisoformat(state["StartedAt"])
    up = (datetime.datetime.now(datetime.UTC) - started).total_seconds()
    return bool(state["Running"] and not state["Restarting"] and up >= seconds)


def steady(names: list[str]) -> list[str]:
    """The containers that run well: one that kept ending before tells nothing of the certificate."""
    told = inspected(names)
    return [one["Name"].lstrip("/") for one in told if runs_for(one["State"], STEADY if one["RestartCount"] else 0)]


def problem(judged: list[str], keys: pathlib.Path, name: str) -> str:
    """What keeps the containers from serving the new certificate now; empty when nothing does."""
    told = inspected(judged)
    dead = [container["Name"].lstrip("/") for container in told if not runs_for(container["State"], SETTLING)]
    if dead:
        return f"{' and '.join(dead)} does not keep running"
    published = {port for container in told for port in ports(container, keys)}
    if published and not any(serves(port, keys, name) for port in published):
        return f"no port of {', '.join(map(str, sorted(published)))} serves the new certificate"
    return ""


def restarted(settings: dict[str, t.Any], keys: pathlib.Path) -> str:
    """Restart the containers and wait until they serve; what is still wrong at the end of the time."""
    judged = steady(settings["containers"])
    restart(settings["containers"])
    deadline = time.monotonic() + settings["timeout"]
    while (wrong := problem(judged, keys, settings["name"])) and time.monotonic() < deadline:
        time.sleep(PAUSE)
    return wrong


def restart(names: list[str]) -> None:
    """Restart containers, each for itself: one that cannot start must not keep the others from it."""
    for name in names:
        subprocess.run(["docker", "restart", name], capture_output=True, check=False)


def openssl(*arguments: str) -> str:
    """What openssl prints; empty where it fails."""
    done = subprocess.run(["openssl", *arguments], capture_output=True, encoding="utf-8", errors="replace", check=False)
    return "" if done.returncode else done.stdout


def can_serve(keys: pathlib.Path, crt: pathlib.Path) -> bool:
    """Whether a certificate belongs to the server's key and the CA, and is valid now."""
    if crt.is_symlink() or not crt.exists():
        return False
    public = openssl("pkey", "-in", str(keys / "server.key"), "-pubout", "-passin", "pass:")
    own = openssl("x509", "-in", str(crt), "-noout", "-pubkey")
    return bool(public) and own == public and bool(openssl("verify", "-CAfile", str(keys / "ca.crt"), str(crt)))


def main() -> None:
    """Restart and prove; with an error sentence on stderr and exit status 1 when it does not work."""
    settings = json.loads(sys.argv[1])
    keys = pathlib.Path(settings["keys"])
    old = keys / "server.crt.old"
    wrong = restarted(settings, keys)
    if not wrong:
        old.unlink(missing_ok=True)
        return
    if not (settings["replaced"] and can_serve(keys, old)):
        sys.exit(wrong)
    old.replace(keys / "server.crt")
    restart(settings["containers"])
    sys.exit(f"{wrong}; the old certificate is back in its place")


if __name__ == "__main__":
    main()
