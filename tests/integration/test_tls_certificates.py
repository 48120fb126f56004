"""The role tls_certificates, on this machine in the place of a Pi: real openssl, real signatures, a real Mosquitto.

The broker runs as another user than root, as it does in its container after it has dropped root.
"""

from __future__ import annotations

import collections.abc
import datetime
import os
import pathlib
import shutil
import tempfile
import threading
import typing as t

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.integration.pi_certificates import BROKER_UID, DAY, NAME, Broker, Pi, belong, name, pem, signed

OTHER_UID = 1884
FRESH = ["ca.key", "ca.crt", "server.key", "server.crt", "ca.pem"]
"""The order in which the role's files appear on a Pi that has none."""


@pytest.fixture
def pi() -> collections.abc.Iterator[Pi]:
    """In a folder that the broker's user may enter."""
    with tempfile.TemporaryDirectory(prefix="trailcurrent-tls-") as folder:
        pathlib.Path(folder).chmod(0o755)
        yield Pi(pathlib.Path(folder, "home"))


# A Pi that has nothing


def test_a_fresh_pi_gets_a_chain_that_the_brokers_user_serves_and_nobody_else_reads(pi: Pi) -> None:
    pi.home.mkdir()
    pi.played()
    with Broker(pi) as broker:
        for host in (NAME, "127.0.0.1", "::1"):
            served = broker.served(pi.home / "local_code/ca.pem", host, strict=True)
    with Broker(pi, OTHER_UID) as stranger, pytest.raises(ConnectionError):
        stranger.served(pi.keys / "ca.pem")
    server, ca = x509.load_der_x509_certificate(served), pi.certificate("ca.crt")
    assert server.not_valid_after_utc - server.not_valid_before_utc < 825 * DAY
    assert server.not_valid_before_utc < datetime.datetime.now(datetime.UTC) - DAY, "a Pi's clock may be behind"
    assert 3640 * DAY < ca.not_valid_after_utc - ca.not_valid_before_utc < 3660 * DAY
    assert server.serial_number.bit_length() > 100
    modes = {path.name: (path.stat().st_uid, path.stat().st_mode & 0o777) for path in pi.keys.iterdir()}
    assert modes["ca.key"] == (0, 0o600)
    assert modes["server.key"] == (BROKER_UID, 0o400)
    assert modes["server.crt"] == modes["ca.crt"] == (0, 0o644)
    before = pi.content()
    assert "changed=0" in pi.played()
    assert pi.content() == before


def test_a_check_on_a_fresh_pi_changes_nothing_and_says_what_would_be_made(pi: Pi) -> None:
    told = pi.played("--check", "--diff")
    assert "the CA: there is none yet" in told
    assert "changed=0" not in told
    assert not pi.home.exists()


@pytest.mark.slow
def test_rsa_where_it_is_wanted_and_the_ca_for_phones_on_the_laptop(pi: Pi) -> None:
    pi.home.mkdir()
    told = pi.played(
        "--diff",
        tls_certificates_key_type="RSA",
        tls_certificates_names=["RV.example"],
        tls_certificates_addresses=["10.8.0.1"],
        tls_certificates_fetch_ca=str(pi.home.parent / "laptop"),
    )
    assert isinstance(pi.certificate("server.crt").public_key(), rsa.RSAPublicKey)
    with Broker(pi) as broker:
        for host in ("rv.example", "10.8.0.1"):
            broker.served(pi.home.parent / "laptop/trailcurrent01-ca.crt", host)
    assert "PRIVATE" not in told
    assert not any(line in told for key in ("ca.key", "server.key") for line in secret_lines(pi.keys / key))


def secret_lines(path: pathlib.Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("-")]


@pytest.mark.parametrize("there", range(len(FRESH)))
def test_power_cut_while_the_first_files_are_written_is_finished_by_the_next_run(pi: Pi, there: int) -> None:
    pi.made_by_old_scripts()
    kept = (pi.keys / "ca.key").read_bytes()
    for file in FRESH[there:]:
        (pi.keys / file).unlink()
    shutil.rmtree(pi.home / "local_code")
    found = pi.look()
    assert "code" not in found
    assert found["ca_key"] == ("new" if there == 0 else "keep")
    assert bool(found["ca_reason"]) == (there < 2), "a CA whose certificate is there stays"
    assert found["server_reason"]
    assert there == 0 or (pi.keys / "ca.key").read_bytes() == kept


def test_power_cut_that_left_new_files_without_content_is_finished_by_the_next_run(pi: Pi) -> None:
    pi.made_by_old_scripts()
    for file in ("server.key", "server.crt", "ca.pem"):
        (pi.keys / file).write_bytes(b"\0" * 512)
    found = pi.look()
    assert found["server_key"] == "new"
    assert found["damaged_keys"] == ["server.key"]
    assert found["stale"] == [str(pi.keys / "ca.pem")]


# A Pi that has certificates


def test_a_pi_of_the_old_scripts_keeps_its_ca_and_keys_and_gets_addresses_and_tight_rights(pi: Pi) -> None:
    pi.made_by_old_scripts(key=rsa.generate_private_key(65537, 2048))
    before = pi.content()
    told = pi.played()
    assert "it is valid for more than 825 days" in told
    after = pi.content()
    assert {file for file in before if before[file] != after[file]} == {"server.crt"}
    assert after["server.crt.old"] == before["server.crt"], "nothing that runs has proved the new one"
    with Broker(pi) as broker:
        broker.served(pi.keys / "ca.pem", "127.0.0.1")
    with Broker(pi, OTHER_UID) as stranger, pytest.raises(ConnectionError):
        stranger.served(pi.keys / "ca.pem")
    assert "changed=0" in pi.played()


def test_certificate_and_key_belong_to_each_other_at_each_moment_of_a_renewal(pi: Pi) -> None:
    """A broker that restarts in the middle must come up."""
    pi.made_by_old_scripts(server_days=(-700, 20))
    seen: set[bytes] = set()
    wrong: list[str] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            certificate = (pi.keys / "server.crt").read_bytes()
            seen.add(certificate)
            if not belong(certificate, (pi.keys / "server.key").read_bytes()):
                wrong.append("certificate and key differ")

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        pi.played()
    finally:
        over.set()
        watcher.join()
    assert len(seen) == 2, "the old one, then the new one, whole"
    assert not wrong


SERVER = {
    "expired": ({"server_days": (-800, -1)}, "it expired on"),
    "about to expire": ({"server_days": (-700, 59)}, "it expires on"),
    "not valid yet": ({"server_days": (5, 600)}, "it is valid only from"),
    "for another name": ({"server_days": (-1, 600), "alternative": ("other.local",)}, f"it is not for {NAME}"),
    "without the loopback addresses": ({"server_days": (-1, 600)}, "it is not for the address 127.0.0.1"),
}


@pytest.mark.parametrize(("made", "reason"), SERVER.values(), ids=SERVER)
def test_server_certificate_that_does_not_serve_is_renewed(pi: Pi, made: dict[str, t.Any], reason: str) -> None:
    pi.made_by_old_scripts(**made)
    found = pi.look()
    assert found["server_reason"].startswith(reason)
    assert (found["ca_reason"], found["ca_key"], found["server_key"]) == ("", "keep", "keep")


def alternatives(*more: str) -> tuple[str, ...]:
    return (NAME, "IP:127.0.0.1", "IP:::1", *more)


def test_address_that_the_pi_got_by_dhcp_matters_only_where_it_is_wanted(pi: Pi) -> None:
    pi.made_by_old_scripts(server_days=(-1, 600), alternative=alternatives())
    (primary, *_) = pi.look()["addresses"]
    assert pi.look()["server_reason"] == f"it is not for the address {primary}"
    assert pi.look(follow_addresses=False)["server_reason"] == ""


def test_certificate_that_is_in_order_is_left_alone_until_its_time(pi: Pi) -> None:
    (primary, *_) = pi.look()["addresses"]
    pi.made_by_old_scripts(server_days=(-1, 62), alternative=alternatives(f"IP:{primary}"))
    found = pi.look()
    assert (found["ca_reason"], found["server_reason"], found["stale"]) == ("", "", [])
    assert (found["server_days"], found["ca_days"]) == (61, 3549)


def test_certificate_that_ends_with_its_ca_is_not_renewed_at_each_run(pi: Pi) -> None:
    (primary, *_) = pi.look()["addresses"]
    pi.made_by_old_scripts(ca_days=(-10, 30), server_days=(-1, 30), alternative=alternatives(f"IP:{primary}"))
    found = pi.look()
    assert found["server_reason"] == ""
    assert "tls_certificates_renew_ca" in found["notes"][0]


def test_certificate_of_another_key_is_made_anew_for_the_key(pi: Pi) -> None:
    pi.made_by_old_scripts()
    (pi.keys / "server.key").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    found = pi.look()
    assert found["server_reason"] == "server.key is not its key"
    assert found["server_key"] == "keep"


def test_certificate_that_another_ca_signed_is_made_anew(pi: Pi) -> None:
    pi.made_by_old_scripts()
    key = ec.generate_private_key(ec.SECP256R1())
    same_name = signed(name("TrailCurrent Root"), key, key, (-1, 900))
    (pi.keys / "ca.key").write_bytes(pem(key))
    for path in (pi.keys / "ca.crt", pi.keys / "ca.pem", pi.home / "local_code/ca.pem"):
        path.write_bytes(same_name)
    assert pi.look()["server_reason"] == "another CA has signed it"


# The CA is never replaced silently


def test_expired_ca_is_refused_and_its_guided_renewal_keeps_key_and_name(pi: Pi) -> None:
    pi.made_by_old_scripts(ca_days=(-3650, -1), server_days=(-100, 600))
    before = pi.content()
    refused = pi.play()
    assert refused.returncode == 2
    assert '"code": "ca_expired"' in refused.stdout
    assert pi.content() == before
    old = pi.certificate("ca.crt")
    pi.played(tls_certificates_renew_ca=True)
    new = pi.certificate("ca.crt")
    assert (new.subject, new.public_key()) == (old.subject, old.public_key())
    assert new.serial_number != old.serial_number
    assert pi.content()["ca.pem"] == pi.content()["ca.crt"] == (pi.home / "local_code/ca.pem").read_bytes()
    x509.load_pem_x509_certificate(before["server.crt"]).verify_directly_issued_by(new)
    with Broker(pi) as broker:
        broker.served(pi.keys / "ca.crt")
    assert "changed=0" in pi.played(tls_certificates_renew_ca=True), "it is in order now"


def lose_ca_key(pi: Pi) -> None:
    (pi.keys / "ca.key").unlink()


def swap_ca_key(pi: Pi) -> None:
    (pi.keys / "ca.key").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))


def damage(file: str) -> collections.abc.Callable[[Pi], None]:
    def cut(pi: Pi) -> None:
        half = (pi.keys / file).read_bytes()[:150]
        copies = [pi.keys / "ca.pem", pi.home / "local_code/ca.pem"] if file == "ca.crt" else []
        for path in (pi.keys / file, *copies):
            path.write_bytes(half)

    return cut


def lose_ca(pi: Pi) -> None:
    for path in (pi.keys / "ca.crt", pi.keys / "ca.pem", pi.home / "local_code/ca.pem"):
        path.unlink()


REFUSED = {
    "the key is lost and a signature is needed": (lose_ca_key, {"server_days": (-800, -1)}, "ca_key_missing"),
    "the key is lost and the name is wrong": (lose_ca_key, {"alternative": ("other.local",)}, "ca_key_missing"),
    "the key is another one's": (swap_ca_key, {}, "certificate_mismatch"),
    "the key is cut off": (damage("ca.key"), {}, "certificate_invalid"),
    "all certificates are cut off": (damage("ca.crt"), {}, "certificate_invalid"),
    "all certificates are gone": (lose_ca, {}, "certificate_invalid"),
    "the clock is before it": (lambda _: None, {"ca_days": (2, 900)}, "clock_implausible"),
}


@pytest.mark.parametrize(("injure", "made", "code"), REFUSED.values(), ids=REFUSED)
def test_ca_that_only_people_can_mend_is_refused(
    pi: Pi, injure: collections.abc.Callable[[Pi], None], made: dict[str, t.Any], code: str
) -> None:
    pi.made_by_old_scripts(**made)
    injure(pi)
    assert pi.look()["code"] == code
    replaced = pi.look(replace_ca=True)
    assert replaced.get("code", "") == ("clock_implausible" if code == "clock_implausible" else "")
    assert code == "clock_implausible" or replaced["ca_reason"]


def test_lost_ca_key_is_only_a_warning_while_nothing_must_be_signed(pi: Pi) -> None:
    pi.made_by_old_scripts(server_days=(-1, 30))
    lose_ca_key(pi)
    found = pi.look()
    assert (found["ca_reason"], found["server_reason"]) == ("", "")
    assert "ca.key is not there" in found["notes"][0]
    assert "should be renewed (it expires on" in found["notes"][1]


@pytest.mark.slow
def test_new_ca_where_it_is_asked_for_is_made_once(pi: Pi) -> None:
    pi.made_by_old_scripts()
    lose_ca_key(pi)
    old = pi.certificate("ca.crt")
    pi.played(tls_certificates_replace_ca=True)
    new = pi.certificate("ca.crt")
    assert new.public_key() != old.public_key()
    with Broker(pi) as broker:
        broker.served(pi.home / "local_code/ca.pem")
    assert "changed=0" in pi.played(tls_certificates_replace_ca=True)


def test_ca_certificate_that_a_power_cut_damaged_comes_back_from_its_copy(pi: Pi) -> None:
    pi.made_by_old_scripts()
    whole = (pi.keys / "ca.crt").read_bytes()
    for injury in (b"", whole[:100]):
        (pi.keys / "ca.crt").write_bytes(injury)
        found = pi.look()
        assert found["ca_reason"] == ""
        assert found["stale"] == [str(pi.keys / "ca.crt")]
        assert found["ca_pem"].encode() == whole


def kept_by_trust_store(pi: Pi) -> pathlib.Path:
    """The keys' folder is lost, and the trust store still has the CA."""
    pi.made_by_old_scripts()
    kept = pi.home / "trust.crt"
    shutil.copy(pi.keys / "ca.crt", kept)
    shutil.copy(pi.keys / "ca.key", pi.home / "ca.key.saved")
    shutil.rmtree(pi.keys)
    shutil.rmtree(pi.home / "local_code")
    return kept


def test_lost_keys_folder_gives_no_new_ca_where_the_trust_store_has_the_old_one(pi: Pi) -> None:
    kept = kept_by_trust_store(pi)
    found = pi.look(trust_file=str(kept))
    assert found["code"] == "ca_key_missing"
    assert str(kept) in found["sentence"]
    kept.write_text("cut off")
    assert pi.look(trust_file=str(kept))["code"] == "ca_key_missing"
    assert pi.look(trust_file=str(kept), replace_ca=True)["ca_key"] == "new"
    kept.write_text("")
    assert pi.look(trust_file=str(kept))["ca_key"] == "new", "a power cut left nothing in it"


def test_ca_comes_back_from_the_trust_store_where_its_key_is_there(pi: Pi) -> None:
    kept = kept_by_trust_store(pi)
    pi.keys.mkdir()
    shutil.copy(pi.home / "ca.key.saved", pi.keys / "ca.key")
    for rest in (b"", b"cut off"):
        (pi.keys / "ca.crt").write_bytes(rest)
        found = pi.look(trust_file=str(kept))
        assert (found["ca_key"], found["ca_reason"]) == ("keep", "")
        assert found["ca_pem"] == kept.read_text()
        assert str(pi.keys / "ca.crt") in found["stale"]
    (pi.keys / "ca.crt").unlink()
    (pi.keys / "ca.key").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    assert pi.look(trust_file=str(kept))["code"] == "ca_key_missing"


def shown_fingerprint(pi: Pi) -> str:
    """As openssl shows it."""
    digits = pi.certificate("ca.crt").fingerprint(hashes.SHA256()).hex(":").upper()
    return f"sha256 Fingerprint={digits}"


def test_sound_ca_is_replaced_by_its_fingerprint_alone_and_only_once(pi: Pi) -> None:
    pi.made_by_old_scripts()
    old, old_key, named = pi.certificate("ca.crt"), (pi.keys / "ca.key").read_bytes(), shown_fingerprint(pi)
    assert "was ignored, for the RV's CA is sound" in pi.look(replace_ca="true")["notes"][0]
    assert shown_fingerprint(pi).partition("=")[2] in pi.look(replace_ca=True)["notes"][0]
    assert pi.look(replace_ca=True)["ca_reason"] == ""
    pi.played(tls_certificates_replace_ca=named)
    assert pi.certificate("ca.crt").public_key() != old.public_key()
    assert old_key not in pi.content().values(), "the old key is gone, as it must be when the RV is sold"
    with Broker(pi) as broker:
        broker.served(pi.home / "local_code/ca.pem")
    told = pi.played(tls_certificates_replace_ca=named)
    assert "changed=0" in told
    assert "has another fingerprint than the one that was given" in told


def test_power_cut_between_key_and_certificate_of_a_replaced_ca_is_finished_by_the_same_command(pi: Pi) -> None:
    pi.made_by_old_scripts()
    swap_ca_key(pi)
    found = pi.look(replace_ca=shown_fingerprint(pi))
    assert (found["ca_key"], found["damaged_keys"]) == ("new", [])
    assert pi.look(replace_ca="ab" * 32)["code"] == "certificate_mismatch"


# What is the user's leads nowhere else


def link(*parts: str) -> collections.abc.Callable[[Pi], None]:
    """Put the path itself beside the home, and a link in its place."""

    def put(pi: Pi) -> None:
        path, other = pi.home.joinpath(*parts), pi.home.parent / "other"
        if path.exists():
            path.rename(other)
        path.symlink_to(other)

    return put


def give_away(*parts: str) -> collections.abc.Callable[[Pi], None]:
    return lambda pi: os.chown(pi.home.joinpath(*parts), OTHER_UID, OTHER_UID)


UNSAFE = {
    "home": link(),
    "data": link("data"),
    "data/keys": link("data", "keys"),
    "local_code": link("local_code"),
    "ca.key": link("data", "keys", "ca.key"),
    "server.key": link("data", "keys", "server.key"),
    "server.key.old, to nothing": link("data", "keys", "server.key.old"),
    "ca.crt": link("data", "keys", "ca.crt"),
    "the bridge's ca.pem": link("local_code", "ca.pem"),
    "home of a stranger": give_away(),
    "local_code of a stranger": give_away("local_code"),
    "ca.key of a stranger": give_away("data", "keys", "ca.key"),
}


@pytest.mark.parametrize("injure", UNSAFE.values(), ids=UNSAFE)
def test_path_that_leads_elsewhere_or_is_a_strangers_is_refused(
    pi: Pi, injure: collections.abc.Callable[[Pi], None]
) -> None:
    pi.made_by_old_scripts()
    injure(pi)
    assert pi.look(replace_ca=True)["code"] == "unsafe_path"


def test_root_changes_nothing_where_a_users_link_leads(pi: Pi) -> None:
    pi.home.mkdir()
    target = pi.home.parent / "passwd"
    target.write_text("everybody reads it")
    target.chmod(0o644)
    pi.keys.mkdir(parents=True)
    (pi.keys / "server.key.old").symlink_to(target)
    done = pi.play()
    assert done.returncode == 2
    assert '"code": "unsafe_path"' in done.stdout
    assert target.stat().st_mode & 0o777 == 0o644


def test_files_as_old_scripts_own_and_link_them_are_no_reason_to_refuse(pi: Pi) -> None:
    pi.made_by_old_scripts()
    os.chown(pi.keys / "server.key", BROKER_UID, BROKER_UID)
    (pi.keys / "ca.pem").unlink()
    (pi.keys / "ca.pem").symlink_to("ca.crt")
    found = pi.look()
    assert "code" not in found
    assert str(pi.keys / "ca.pem") not in {wrong["path"] for wrong in found["modes"]}


WRONG = {
    "a CA to replace that no fingerprint names": {"replace_ca": "AB:CD"},
    "a name with a blank": {"names": ["trailcurrent 01.local"]},
    "a name that is too long": {"names": ["a" * 65]},
    "an address that is none": {"addresses": ["10.8.0"]},
    "a lifetime that phones refuse": {"server_days": 826},
    "a renewal at each run": {"server_days": 62},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_variable_that_cannot_work_is_refused_before_anything_is_touched(pi: Pi, wrong: dict[str, t.Any]) -> None:
    assert pi.look(**wrong)["code"] == "inventory_invalid"
    assert not pi.home.exists()
