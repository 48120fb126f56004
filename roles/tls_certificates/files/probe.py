"""What certificates and keys a Pi has, and what they need: runs on the Pi, prints one JSON object, changes nothing.

Usage: ``python3 -c <this text> SETTINGS`` with the role's settings as JSON (``_tls_certificates_settings``). It needs
the standard library and the command ``openssl``: it also answers on a Pi that has no Python of ours yet. Names and
lifetimes: PROTOCOLS.md, Files on the Pi. Nothing that it prints is secret.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import ipaddress
import json
import os
import pathlib
import pwd
import re
import shutil
import ssl
import stat
import subprocess
import sys
import time
import typing as t

DAY = 86_400  # s
OLDEST_CLOCK = 1_795_392_000  # s since the epoch: 2026-11-23; a clock that shows less was never set
LONGEST = 825  # days; Apple's devices take no server certificate that is valid for longer
COMMAND_TIMEOUT = 20  # s; openssl and docker answer within one
BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
# 64 characters is the most that a certificate's common name holds.
NAME = re.compile(r"^(?=.{1,64}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$")
OR_REPLACE = "or set `tls_certificates_replace_ca` to make a new CA (every phone needs the new one then)"
FLEETING = {"temporary", "deprecated", "tentative"}  # flags of an IPv6 address that will be another one soon
# Interfaces of containers: nobody outside the Pi reaches their addresses.
INTERNAL = re.compile(r"^(lo|docker|br-|veth|virbr|podman|cni)")
SECRET = ("ca.key", "ca.key.old", "server.key", "server.key.old")
FINGERPRINT = re.compile(r"[0-9a-f]{64}")  # SHA-256, without the colons that openssl shows
YES = {"1", "on", "t", "true", "y", "yes"}
NO = {"", "0", "f", "false", "n", "no", "none", "off"}


class Refusal(Exception):
    """Nothing is done: ``code`` is one of the collection's, the text is the sentence."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class Unreadable(Exception):
    """A file is there, and holds no certificate or key; the text is its path."""


@dataclasses.dataclass(frozen=True)
class Certificate:
    """One certificate's file, as far as it matters here; times in seconds since the epoch."""

    path: pathlib.Path
    pem: str
    public: str
    start: float
    end: float
    names: frozenset[str]
    addresses: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Authority:
    """The RV's CA: its certificate and key, and why it gets a new certificate ("" when it does not)."""

    certificate: Certificate | None
    key: str  # keep, new, absent
    reason: str
    replaced: bool = False  # a sound one, because its fingerprint was given


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """A command's outcome; one that cannot be run at all is like one that failed."""
    # openssl prints the letters of a name as they are in the certificate, in whatever encoding.
    how: dict[str, t.Any] = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}
    try:
        return subprocess.run(command, timeout=COMMAND_TIMEOUT, check=False, **how)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def content(path: pathlib.Path) -> str:
    """A file's text; empty when it is not there, or when a power cut left it without content."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \t\r\n")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Unreadable(f"{path} ({error.strerror})") from error


def day(moment: float) -> str:
    """A moment as a date."""
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%d")


def certificate(path: pathlib.Path) -> Certificate | None:
    """The certificate in a file; None when there is none."""
    if not content(path):
        return None
    show = ("-noout", "-pubkey", "-dates", "-subject", "-nameopt", "sep_multiline,sname", "-ext", "subjectAltName")
    told = run("openssl", "x509", "-in", str(path), *show)
    block = BLOCK.search(content(path))
    times = dict(re.findall(r"^(notBefore|notAfter)=(.+)$", told.stdout, re.MULTILINE))
    if told.returncode or block is None or len(times) != 2:
        raise Unreadable(str(path))
    alternative = re.findall(r"(DNS|IP Address):([^,\s]+)", told.stdout)
    names = {value.lower() for kind, value in alternative if kind == "DNS"}
    common = {value.lower() for value in re.findall(r"^\s*CN\s*=\s*(\S+)\s*$", told.stdout, re.MULTILINE)}
    return Certificate(
        path=path,
        pem=block.group() + "\n",
        public=told.stdout[told.stdout.index("-----BEGIN PUBLIC") :].partition("-----END")[0],
        start=ssl.cert_time_to_seconds(times["notBefore"]),
        end=ssl.cert_time_to_seconds(times["notAfter"]),
        names=frozenset(names or common),
        addresses=frozenset(str(ipaddress.ip_address(value)) for kind, value in alternative if kind == "IP Address"),
    )


def public_half(path: pathlib.Path) -> str:
    """The public half of the private key in a file; empty when there is none."""
    if not content(path):
        return ""
    told = run("openssl", "pkey", "-in", str(path), "-pubout", "-passin", "pass:")
    if told.returncode or "-----BEGIN PUBLIC" not in told.stdout:
        raise Unreadable(str(path))
    return told.stdout[told.stdout.index("-----BEGIN PUBLIC") :].partition("-----END")[0]


def or_none(read: t.Callable[[pathlib.Path], t.Any], path: pathlib.Path) -> t.Any:
    """What ``read`` finds in a file; None for one that cannot be read."""
    try:
        return read(path)
    except Unreadable:
        return None


# The CA


def replacement(value: object) -> bool | str:
    """What ``tls_certificates_replace_ca`` asks for: yes or no for a lost CA, or a sound one's fingerprint."""
    text = str(value).strip().lower()
    if text in YES | NO:
        return text in YES
    digits = re.sub(r"[:\s]", "", text.rpartition("=")[2])
    if FINGERPRINT.fullmatch(digits):
        return digits
    raise Refusal(
        "inventory_invalid",
        "`tls_certificates_replace_ca` is neither true nor false, nor a SHA-256 fingerprint (64 hexadecimal digits) of "
        "the CA that is to be replaced; correct it.",
    )


def fingerprint(found: Certificate) -> str:
    """A certificate's SHA-256 in hexadecimal digits."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(found.pem)).hexdigest()


def is_named(settings: dict[str, t.Any], asked: bool | str) -> bool:
    """Whether the CA, be it sound or not, is the one whose fingerprint was given."""
    paths = [pathlib.Path(settings["keys"], "ca.crt"), *map(pathlib.Path, settings["copies"])]
    # Only the first one: a copy that a run which broke off left behind is not the RV's CA.
    known = next(filter(None, (or_none(certificate, path) for path in paths)), None)
    return known is not None and fingerprint(known) == asked


def authority(settings: dict[str, t.Any], now: float) -> Authority:
    """The CA as it is, with what is needed; refuses where only people can decide."""
    asked = replacement(settings["replace_ca"])
    named = is_named(settings, asked)
    try:
        found = sound_authority(settings, now)
    except Unreadable as error:
        refusal = Refusal(
            "certificate_invalid",
            f"{error} cannot be read as a certificate or key of the RV's CA; restore it from a backup, {OR_REPLACE}.",
        )
    except Refusal as error:
        refusal = error
    else:
        if not named and (found.key != "absent" or asked is not True):
            return found
        refusal = no_key(settings, "nothing can be signed")
    if refusal.code == "clock_implausible" or not (named or asked is True):
        raise refusal
    if named:
        return Authority(None, "new", "it has the fingerprint of the one that shall be replaced", replaced=True)
    kept = or_none(public_half, pathlib.Path(settings["keys"], "ca.key"))
    return Authority(None, "keep" if kept else "new", "the old CA cannot be used any more, and shall be replaced")


def sound_authority(settings: dict[str, t.Any], now: float) -> Authority:
    """The CA, when its files are in order."""
    keys = pathlib.Path(settings["keys"])
    key = public_half(keys / "ca.key")
    known = ca_certificate([keys / "ca.crt", *map(pathlib.Path, settings["copies"]), *trust_file(settings, key)], key)
    if known is None:
        return new_authority(settings, key)
    if key and key != known.public:
        raise Refusal(
            "certificate_mismatch",
            f"{keys / 'ca.key'} is not the key of {known.path}; restore both from one backup, {OR_REPLACE}.",
        )
    if now < known.start:
        raise Refusal(
            "clock_implausible",
            f"The clock shows {day(now)}, and {known.path} is valid only from {day(known.start)}; set the clock first.",
        )
    return Authority(known, "keep" if key else "absent", renewal(settings, known, key, now))


def ca_certificate(paths: list[pathlib.Path], key: str) -> Certificate | None:
    """The CA's certificate: the first file's, or that of a copy which belongs to the key; None when there is none."""
    damaged = None
    for path in paths:
        try:
            found = certificate(path)
        except Unreadable as error:
            damaged = damaged or error
            continue
        if found is not None and (damaged is None or found.public == key):
            return found
    if damaged is not None:
        raise damaged
    return None


def trust_file(settings: dict[str, t.Any], key: str) -> list[pathlib.Path]:
    """The trust store's file, where its certificate belongs to the key: it is the CA that got lost."""
    path = pathlib.Path(settings["trust_file"])
    found = or_none(certificate, path)
    return [path] if found is not None and found.public == key else []


def new_authority(settings: dict[str, t.Any], key: str) -> Authority:
    """A first CA; refused where a server certificate, or the trust store, shows that there was one."""
    keys, trust = pathlib.Path(settings["keys"]), pathlib.Path(settings["trust_file"])
    if or_none(content, trust) != "":
        raise Refusal(
            "ca_key_missing",
            f"{keys} holds neither the RV's CA nor its key any more, and {trust} shows that there was one; restore "
            f"them from a backup, {OR_REPLACE}.",
        )
    if or_none(content, keys / "server.crt") != "":
        raise Refusal(
            "certificate_invalid",
            f"{keys / 'ca.crt'} and its copies are gone, and the server.crt beside it was signed by that CA; restore "
            f"them from a backup, {OR_REPLACE}.",
        )
    return Authority(None, "keep" if key else "new", "there is none yet")


def renewal(settings: dict[str, t.Any], known: Certificate, key: str, now: float) -> str:
    """Why the CA gets a new certificate for its old key; empty when it does not."""
    due = known.end < now + settings["ca_renew_days"] * DAY
    expired = known.end <= now
    if expired and not settings["renew_ca"]:
        raise Refusal(
            "ca_expired",
            f"The RV's CA in {known.path} expired on {day(known.end)}; run it again with `tls_certificates_renew_ca`, "
            "which renews it with the same key, and install the new ca.crt on every phone and computer.",
        )
    if not (due and settings["renew_ca"]):
        return ""
    why = f"it {'expired' if expired else 'expires'} on {day(known.end)}"
    if not key:
        raise no_key(settings, f"the CA cannot be renewed, although {why}")
    return why


def no_key(settings: dict[str, t.Any], what: str) -> Refusal:
    """The refusal to sign without the CA's key."""
    return Refusal(
        "ca_key_missing",
        f"{pathlib.Path(settings['keys'], 'ca.key')} is not there, so {what}; restore it from a backup, {OR_REPLACE}.",
    )


# The server's certificate


def broken(settings: dict[str, t.Any], ca: Authority, found: Certificate | None, public: str, now: float) -> str:
    """Why the server's certificate cannot serve; empty when it can."""
    if found is None:
        return "there is none, or it cannot be read"
    missing = sorted(set(settings["names"]) - found.names)
    reasons = {
        "its key is not there, or cannot be read": not public,
        "server.key is not its key": public != found.public,
        "the CA gets a new certificate": bool(ca.reason),
        "another CA has signed it": ca.certificate is not None and not signed(ca.certificate, found),
        f"it expired on {day(found.end)}": found.end <= now,
        f"it is valid only from {day(found.start)}, and today is {day(now)}": now < found.start,
        f"it is not for {' and '.join(missing)}": bool(missing),
    }
    return next((reason for reason, so in reasons.items() if so), "")


def signed(ca: Certificate, found: Certificate) -> bool:
    """Whether clients that trust ``ca`` trust ``found``, apart from its dates."""
    return run("openssl", "verify", "-no_check_time", "-CAfile", str(ca.path), str(found.path)).returncode == 0


def worn(settings: dict[str, t.Any], ca: Authority, found: Certificate, primary: str, now: float) -> str:
    """Why a server certificate that serves well should be renewed all the same; empty when it should not."""
    due = found.end < now + settings["renew_days"] * DAY
    # A new one cannot outlive the CA either.
    if due and ca.certificate and found.end < ca.certificate.end - DAY:
        return f"it expires on {day(found.end)}"
    if found.end - found.start > LONGEST * DAY:
        return f"it is valid for more than {LONGEST} days, which phones do not accept"
    wanted = {str(ipaddress.ip_address(address)) for address in settings["addresses"]}
    if primary and settings["follow_addresses"]:
        wanted.add(primary)
    missing = sorted(wanted - found.addresses)
    return f"it is not for the address {' and '.join(missing)}" if missing else ""


# What is around


def addresses() -> list[str]:
    """The Pi's lasting addresses that others can reach, IPv4 first."""
    links = json.loads(run("ip", "-json", "address", "show", "scope", "global").stdout or "[]")
    reachable = [link for link in links if not INTERNAL.match(link.get("ifname", "lo"))]
    found = [
        ipaddress.ip_address(info["local"])
        for info in (info for link in reachable for info in link.get("addr_info", []))
        if "local" in info and not FLEETING & {flag for flag, is_so in info.items() if is_so is True}
    ]
    return [str(address) for address in sorted(set(found), key=lambda one: (one.version, int(one)))]


def primary_address(known: list[str]) -> str:
    """The IPv4 address of the Pi's default route; without one its first IPv4 address; "" when it has none."""
    four = [address for address in known if ipaddress.ip_address(address).version == 4]
    told = run("ip", "-json", "-4", "route", "get", "192.0.2.1")
    routes = json.loads(told.stdout or "[]") if not told.returncode else []
    chosen = [route.get("prefsrc", "") for route in routes if route.get("prefsrc") in four]
    return next(iter([*chosen, *four]), "")


def missing_folders(settings: dict[str, t.Any]) -> list[str]:
    """The folders that are to be made, parents first."""
    keys = pathlib.Path(settings["keys"])
    wanted = [keys.parent, keys, *(pathlib.Path(copy).parent for copy in settings["copies"])]
    return [str(folder) for folder in dict.fromkeys(wanted) if not folder.is_dir()]


def wrong_modes(settings: dict[str, t.Any]) -> list[dict[str, str]]:
    """The files with another owner or more rights than they may have: path, owner and mode to set."""
    keys = pathlib.Path(settings["keys"])
    root = os.geteuid()
    secret = dict.fromkeys(SECRET, root) | {"server.key": settings["broker_uid"]}
    public = [keys / "ca.crt", keys / "server.crt", *map(pathlib.Path, settings["copies"])]
    wrong = [
        {"path": str(keys / name), "owner": str(uid), "mode": "0600" if uid == root else "0400"}
        for name, uid in secret.items()
        if os.path.lexists(keys / name) and not private((keys / name).lstat(), uid)
    ]
    files = [path for path in public if path.exists() and not path.is_symlink()]
    wrong += [{"path": str(path), "mode": "0644"} for path in files if not shared(path.lstat())]
    if keys.exists() and keys.lstat().st_mode & stat.S_IWOTH:
        wrong.append({"path": str(keys), "mode": "0755"})
    return wrong


def private(info: os.stat_result, uid: int) -> bool:
    """Whether the user ``uid`` can read a file, and nobody else."""
    return info.st_uid == uid and stat.S_IMODE(info.st_mode) in (0o400, 0o600)


def shared(info: os.stat_result) -> bool:
    """Whether everybody can read a file, and only its owner write it."""
    return bool(info.st_mode & stat.S_IROTH) and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def trusted(settings: dict[str, t.Any], pem: str) -> bool:
    """Whether the system's trust store holds the CA."""
    body = "".join(pem.split())
    return body in "".join((or_none(content, pathlib.Path(settings["trust_bundle"])) or "").split())


def containers(keys: pathlib.Path) -> dict[str, bool]:
    """The running containers that use a file of ``keys``; true for those that started before it was written."""
    ids = run("docker", "ps", "--quiet").stdout.split() if shutil.which("docker") else []
    told = json.loads(run("docker", "inspect", *ids).stdout or "[]") if ids else []
    users: dict[str, bool] = {}
    for container in told:
        written = max((newest(mount.get("Source", "/"), keys) for mount in container.get("Mounts", [])), default=0.0)
        started = datetime.datetime.fromisoformat(container["State"]["StartedAt"]).timestamp()
        users |= {container["Name"].lstrip("/"): written > started} if written else {}
    return users


def newest(source: str, keys: pathlib.Path) -> float:
    """When a mounted file of ``keys`` (or the newest public file of the mounted folder) was written; 0 for others."""
    files = [keys / name for name in ("ca.crt", "ca.pem", "server.crt")]
    return max(
        (file.stat().st_mtime for file in files if source in (str(file), str(keys)) and file.exists()), default=0.0
    )


# All of it


def ignored(settings: dict[str, t.Any], ca: Authority) -> list[str]:
    """That ``tls_certificates_replace_ca`` did nothing, and what would."""
    asked = replacement(settings["replace_ca"])
    if not asked or ca.certificate is None:
        return []
    digits = fingerprint(ca.certificate).upper()
    shown = ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
    why = "is sound" if asked is True else "has another fingerprint than the one that was given"
    return [
        f"`tls_certificates_replace_ca` was ignored, for the RV's CA {why}; to replace it all the same, give its "
        f"fingerprint as the value: {shown}"
    ]


def notes(settings: dict[str, t.Any], ca: Authority, now: float, unrenewed: str) -> list[str]:
    """What people should know, and what does not stop the run."""
    told = ignored(settings, ca)
    keys = settings["keys"]
    if ca.key == "absent":
        told.append(f"{keys}/ca.key is not there: no certificate can be renewed; restore it from a backup.")
    if unrenewed:
        told.append(f"{keys}/server.crt should be renewed ({unrenewed}), and cannot be without ca.key.")
    if ca.certificate and not ca.reason and ca.certificate.end < now + settings["ca_renew_days"] * DAY:
        told.append(
            f"The RV's CA expires on {day(ca.certificate.end)}: run setup.yml with `tls_certificates_renew_ca` before, "
            "and install the new ca.crt on every phone and computer."
        )
    return told


def lifetime(ca: Authority, settings: dict[str, t.Any], now: float) -> float:
    """When a new server certificate ends: never after the CA."""
    wanted: float = now + (settings["server_days"] - settings["back_days"]) * DAY
    return min(wanted, ca.certificate.end) if ca.certificate and not ca.reason else wanted


def check(settings: dict[str, t.Any], now: float) -> None:
    """Refuse what no certificate can be made from."""
    if now < OLDEST_CLOCK:
        raise Refusal("clock_implausible", f"The clock shows {day(now)}; set it first: certificates are made by it.")
    names = [f"{name!r} of the RV's names" for name in settings["names"] if not NAME.match(name)]
    numbers = [f"{one!r} of `tls_certificates_addresses`" for one in settings["addresses"] if not is_address(one)]
    if names or numbers:
        raise Refusal(
            "inventory_invalid", f"{' and '.join(names + numbers)} cannot stand in a certificate; correct it."
        )
    if not settings["renew_days"] + settings["back_days"] < settings["server_days"] <= LONGEST:
        raise Refusal(
            "inventory_invalid",
            f"`tls_certificates_server_days` is {settings['server_days']}: it must be {LONGEST} at most, and more than "
            f"`tls_certificates_renew_days` ({settings['renew_days']}) and {settings['back_days']}; correct the two.",
        )
    if shutil.which("openssl") is None and any(pathlib.Path(settings["keys"]).glob("*.crt")):
        raise Refusal("packages_unavailable", "The command openssl is not there; install Debian's package openssl.")


def check_paths(settings: dict[str, t.Any]) -> None:
    """Refuse paths by which what root does here would be done elsewhere; those of the user are his to change."""
    keys, home = pathlib.Path(settings["keys"]), pathlib.Path(settings["home"])
    copies = [pathlib.Path(copy) for copy in settings["copies"]]
    owners = {0, os.geteuid(), *user_ids(settings["user"])}
    for folder in dict.fromkeys([home, keys.parent, keys, *(copy.parent for copy in copies)]):
        check_path(folder, owners, settings["user"])
    for name in SECRET:
        broker = {settings["broker_uid"]} if name.startswith("server") else set()
        check_path(keys / name, owners | broker, settings["user"])
    for path in [keys / "ca.crt", keys / "server.crt", keys / "server.crt.old", *copies]:
        # What old scripts may have linked to each other is all the same public.
        if path.is_symlink() and path.resolve().parent != keys.resolve():
            raise elsewhere(path)


def check_path(path: pathlib.Path, owners: set[int], user: str) -> None:
    """Refuse a link, and what belongs to a stranger; what is not there is in order."""
    if not os.path.lexists(path):
        return
    if path.is_symlink():
        raise elsewhere(path)
    owner = path.lstat().st_uid
    if owner not in owners:
        raise Refusal(
            "unsafe_path",
            f"{path} belongs to the user {owner}, neither to root nor to {user}; find out why, and give it back "
            f"(`sudo chown {user} {path}`).",
        )


def elsewhere(path: pathlib.Path) -> Refusal:
    """The refusal to go where a link leads."""
    return Refusal(
        "unsafe_path",
        f"{path} is a link that leads to {path.readlink()}, and certificates and rights would be changed there; put "
        "the file or folder itself in its place.",
    )


def user_ids(name: str) -> list[int]:
    """The number of a user; none where there is no such user yet."""
    try:
        return [pwd.getpwnam(name).pw_uid]
    except KeyError:
        return []


def is_address(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def days_left(found: Certificate | None, now: float) -> int | None:
    """Whole days until a certificate's end."""
    return int((found.end - now) // DAY) if found else None


def plan(settings: dict[str, t.Any], now: float) -> dict[str, t.Any]:
    """All that the role needs to know, in one round trip."""
    keys = pathlib.Path(settings["keys"])
    check(settings, now)
    check_paths(settings)
    ca = authority(settings, now)
    found = or_none(certificate, keys / "server.crt")
    public = or_none(public_half, keys / "server.key") or ""
    here = addresses()
    reason = broken(settings, ca, found, public, now)
    if reason and ca.key == "absent":
        raise no_key(settings, f"{keys / 'server.crt'} cannot be renewed, although {reason}")
    wish = worn(settings, ca, found, primary_address(here), now) if found and not reason else ""
    users = containers(keys)
    fates = {"ca.key": ca.key, "server.key": "keep" if public else "new"}
    # Whoever has the key of a CA that shall go can still use it: it is not kept.
    gone = {"ca.key"} if ca.replaced else set()
    pem = ca.certificate.pem if ca.certificate else ""
    copies = [keys / "ca.crt", *map(pathlib.Path, settings["copies"])]
    return {
        "missing_folders": missing_folders(settings),
        "damaged_keys": [
            name for name in fates if fates[name] == "new" and name not in gone and (keys / name).exists()
        ],
        "ca_key": ca.key,
        "ca_reason": ca.reason,
        "ca_pem": pem,
        "ca_days": days_left(ca.certificate, now),
        "server_key": fates["server.key"],
        "server_reason": reason or (wish if ca.key != "absent" else ""),
        "server_there": found is not None,
        "server_days": days_left(found, now),
        "server_not_after": time.strftime("%Y%m%d%H%M%SZ", time.gmtime(lifetime(ca, settings, now))),
        "addresses": here,
        "stale": [str(path) for path in copies if pem.strip() not in (or_none(content, path) or "")],
        "modes": wrong_modes(settings),
        "trusted": bool(pem) and trusted(settings, pem),
        "containers": sorted(users),
        "outdated": sorted(name for name, outdated in users.items() if outdated),
        "notes": notes(settings, ca, now, wish if ca.key == "absent" else ""),
    }


def main() -> None:
    """Print the plan, or the refusal as ``{"code": ..., "sentence": ...}``."""
    try:
        answer = plan(json.loads(sys.argv[1]), time.time())
    except Refusal as refusal:
        answer = {"code": refusal.code, "sentence": str(refusal)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
