"""Whom to trust and when: no clock, no damaged record and no old release may decide it wrongly."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.verify import trust
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError, InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import (
    FileEntry,
    Manifest,
    Requirements,
    encode_manifest,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import signature
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.clock import BUILD_DATE

DAY = 86_400
YEAR = 365 * DAY
BUILD = BUILD_DATE
JUNE_2027 = 1_811_808_000
DEPLOY = FileEntry("deploy.sh", 0, hashlib.sha256().hexdigest(), 0o755, 0, "stored", 0, hashlib.sha256().hexdigest())
RELEASE = Manifest(
    version="1.2.0",
    counter=12,
    created=BUILD,
    released=BUILD,
    oldest_version=None,
    database_one_way=False,
    requires=Requirements((), (), (), 0, 0, 0),
    images=(),
    firmware=(),
    deploy=DEPLOY,
    files=(),
)
BYTES = encode_manifest(RELEASE)
DIGEST = hashlib.sha256(BYTES).hexdigest()


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("keys") / "release"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "laptop", "-f", path], check=True)
    return path


@pytest.fixture(scope="module")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("keys") / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "other", "-f", path], check=True)
    return path


@pytest.fixture(scope="module")
def signed(key: pathlib.Path) -> bytes:
    return signature.sign(BYTES, key)


@pytest.fixture
def signers(tmp_path: pathlib.Path, key: pathlib.Path):
    """Writes an allowed_signers file that trusts the key with these options."""

    def write(options: str = "") -> pathlib.Path:
        path = tmp_path / "allowed_signers"
        path.write_text(f"a@x {options} {key.with_suffix('.pub').read_text()}")
        return path

    return write


def record_of(tmp_path: pathlib.Path, *, clock: float = BUILD, synced: bool = False) -> trust.TrustRecord:
    return trust.TrustRecord(tmp_path / "state", lambda: clock, lambda: synced)


def judged(
    signature: bytes | None,
    allowed_signers: pathlib.Path | None = None,
    policy: str = "required",
    record: trust.TrustRecord | None = None,
    *,
    manifest: bytes = BYTES,
    clock: float = BUILD,
    synced: bool = False,
) -> trust.Judgement:
    return trust.judge(
        manifest,
        signature,
        allowed_signers=allowed_signers,
        policy=policy,
        record=record,
        clock=lambda: clock,
        synced=lambda: synced,
        subject="demo.zip",
    )


def refusal(*arguments: object, **options: object) -> FleetError:
    with pytest.raises(FleetError) as caught:
        judged(*arguments, **options)  # type: ignore[arg-type]
    assert str(caught.value).isprintable()
    return caught.value


def by(at: int = BUILD, principal: str | None = "a@x", key: str = "SHA256:of-some-key") -> trust.Judgement:
    """What the record is told of who signed."""
    return trust.Judgement(True, principal, "signed", key, at)


# the time that a key is judged at


@pytest.mark.parametrize(
    ("clock", "synced", "newest", "expected"),
    [
        (0, False, 0, BUILD),  # no battery: 1970
        (-5.5, False, 0, BUILD),
        (0, False, BUILD + YEAR, BUILD + YEAR),
        (BUILD + YEAR, False, BUILD, BUILD + YEAR),
        (BUILD + YEAR, False, BUILD + 9 * YEAR, BUILD + 9 * YEAR),
        (BUILD + YEAR, True, BUILD + 9 * YEAR, BUILD + YEAR + DAY),  # one wrong date locks nothing
        (BUILD + YEAR, True, BUILD + YEAR + 5, BUILD + YEAR + 5),
        (0, True, BUILD + YEAR, BUILD),
    ],
)
def test_time_is_the_latest_that_can_be_believed(clock: float, synced: bool, newest: int, expected: int) -> None:
    assert trust.judged_time(clock, synced, newest) == expected


@given(st.integers(-(1 << 40), 1 << 40), st.booleans(), st.integers(0, 1 << 40))
def test_time_is_never_before_the_clock_or_the_build(clock: int, synced: bool, newest: int) -> None:
    at = trust.judged_time(clock, synced, newest)
    assert at >= max(clock, BUILD)
    assert not synced or at <= max(clock + DAY, BUILD)


# the judgement


def test_unsigned_bundle_is_refused_where_a_signature_is_required(tmp_path: pathlib.Path, signers) -> None:
    assert refusal(None, signers()).code == "bundle_unsigned"
    assert "demo.zip" in str(refusal(None))
    record = record_of(tmp_path)
    record.remember(RELEASE, DIGEST, by())
    assert refusal(None, signers(), "required", record).code == "bundle_unsigned"


def test_unsigned_bundle_is_accepted_and_said_where_policy_allows(signers) -> None:
    found = judged(None, signers(), "if_present")
    assert (found.signed, found.principal) == (False, None)
    assert "demo.zip has no signature: accepted" in found.reason


def test_signed_bundle_names_who_signed_it(signed: bytes, signers) -> None:
    for policy in trust.POLICIES:
        found = judged(signed, signers(), policy)
        assert (found.signed, found.principal) == (True, "a@x")
        assert "demo.zip is signed by a@x (key SHA256:" in found.reason


def test_first_use_is_accepted_and_said_only_where_policy_allows(tmp_path: pathlib.Path, signed: bytes) -> None:
    for allowed in (None, tmp_path / "none", tmp_path / "none" / "at" / "all"):
        found = judged(signed, allowed, "if_present")
        assert (found.signed, found.principal) == (True, None)
        assert "first use" in found.reason
        assert "SHA256:" in found.reason
        error = refusal(signed, allowed)
        assert error.code == "signers_missing"
        assert "set-up" in str(error)


def test_policy_that_accepts_the_unsigned_accepts_no_wrong_signature(
    tmp_path: pathlib.Path, signed: bytes, signers
) -> None:
    other = BYTES.replace(b"1.2.0", b"1.2.1")
    for allowed in (None, signers()):
        assert refusal(signed, allowed, "if_present", manifest=other).code == "signature_invalid"
        assert refusal(signed + b"x", allowed, "if_present").code == "signature_invalid"
    assert refusal(signed, signers('valid-before="20260101"'), "if_present").code == "signer_expired"
    assert refusal(signed, signers('namespaces="file"'), "if_present").code == "signature_namespace"
    (tmp_path / "link").symlink_to(tmp_path / "none")
    assert refusal(signed, tmp_path / "link", "if_present").code == "invalid_signers"


def test_unknown_policy_is_refused(signed: bytes) -> None:
    assert refusal(signed, None, "never").code == "invalid_option"


def test_key_is_judged_by_the_build_date_where_the_clock_says_1970(signed: bytes, signers) -> None:
    assert judged(signed, signers('valid-after="20260101",valid-before="20280101"'), clock=0).principal == "a@x"
    error = refusal(signed, signers('valid-before="20261101"'), clock=0)
    assert error.code == "signer_expired"
    assert "2026-11-23T00:00:00Z" in str(error)
    assert "NTP" not in str(error)  # no clock can help
    assert refusal(signed, signers('valid-after="20270101"'), clock=0).code == "clock_wrong"


def test_newest_verified_release_keeps_a_key_expired_whatever_the_clock(
    tmp_path: pathlib.Path, signed, signers
) -> None:
    allowed = signers('valid-before="20270101"')
    record = record_of(tmp_path)
    assert judged(signed, allowed, record=record, clock=0).principal == "a@x"
    later = dataclasses.replace(RELEASE, version="1.3.0", released=JUNE_2027)
    record.remember(later, hashlib.sha256(encode_manifest(later)).hexdigest(), by())
    assert refusal(signed, allowed, record=record, clock=0).code == "signer_expired"


def test_wrong_date_of_one_release_locks_no_pi_whose_clock_is_set(tmp_path: pathlib.Path, signed, signers) -> None:
    allowed = signers('valid-before="20270101"')
    record = record_of(tmp_path)
    record.remember(dataclasses.replace(RELEASE, released=BUILD + 50 * YEAR), "a" * 64, by())
    assert record.newest_released == BUILD + 50 * YEAR
    assert judged(signed, allowed, record=record, synced=True).principal == "a@x"
    healed = record_of(tmp_path, synced=True)
    healed.remember(RELEASE, DIGEST, by())
    assert healed.newest_released == BUILD + DAY


def test_expiry_by_a_clock_that_nothing_has_set_says_so(signed: bytes, signers) -> None:
    allowed = signers('valid-before="20270101"')
    error = refusal(signed, allowed, clock=BUILD + 9 * YEAR)
    assert error.code == "signer_expired"
    assert "which NTP has not set" in str(error)
    assert error.details["principal"] == "a@x"
    assert "NTP" not in str(refusal(signed, allowed, clock=BUILD + 9 * YEAR, synced=True))


def test_release_verified_before_goes_back_after_the_key_expired(tmp_path: pathlib.Path, signed, signers) -> None:
    record = record_of(tmp_path)
    record.remember(RELEASE, DIGEST, judged(signed, signers()))
    allowed = signers('valid-before="20261201"')
    found = judged(signed, allowed, record=record_of(tmp_path), clock=BUILD + YEAR)
    assert (found.signed, found.principal, found.at) == (True, "a@x", BUILD)
    assert "verified here at 2026-11-23T00:00:00Z" in found.reason
    assert refusal(signed + b"\n", allowed, record=record).code == "signature_invalid"
    assert refusal(signed, allowed, record=None, clock=BUILD + YEAR).code == "signer_expired"


def test_record_makes_no_key_trusted_that_the_file_does_not_name(
    tmp_path: pathlib.Path, signed: bytes, signers, other_key: pathlib.Path
) -> None:
    record = record_of(tmp_path)
    record.remember(RELEASE, DIGEST, judged(signed, signers()))
    assert refusal(signed, None, record=record).code == "signers_missing"
    removed = tmp_path / "others"
    removed.write_text(f"b@x {other_key.with_suffix('.pub').read_text()}")
    assert refusal(signed, removed, record=record).code == "signer_unknown"


def test_manifest_that_another_key_signs_again_is_judged_anew(
    tmp_path: pathlib.Path, signed: bytes, signers, other_key: pathlib.Path
) -> None:
    record = record_of(tmp_path)
    record.remember(RELEASE, DIGEST, judged(signed, signers()))
    again = signature.sign(BYTES, other_key)
    assert refusal(again, signers(), record=record).code == "signer_unknown"
    both = tmp_path / "both"
    both.write_text(f'{signers().read_text()}b@x valid-before="20261124" {other_key.with_suffix(".pub").read_text()}')
    assert refusal(again, both, record=record, clock=BUILD + YEAR).code == "signer_expired"


def test_release_that_nobody_vouched_for_is_not_recorded(tmp_path: pathlib.Path, signed, signers) -> None:
    record = record_of(tmp_path)
    record.remember(dataclasses.replace(RELEASE, released=JUNE_2027), DIGEST, judged(signed, None, "if_present"))
    assert (record.newest_released, record.find(DIGEST)) == (0, None)
    assert not (tmp_path / "state").exists()
    assert refusal(signed, signers('valid-before="20260101"'), "required", record).code == "signer_expired"


# the record


def test_record_survives_its_process(tmp_path: pathlib.Path) -> None:
    assert record_of(tmp_path).find(DIGEST) is None
    assert not (tmp_path / "state").exists()
    record_of(tmp_path).remember(RELEASE, DIGEST, by(7))
    found = record_of(tmp_path)
    assert found.find(DIGEST) == trust.Verified("1.2.0", BUILD, "a@x", "SHA256:of-some-key", 7)
    assert (found.newest_released, found.damage) == (BUILD, None)
    found.remember(RELEASE, DIGEST, by(8))
    assert record_of(tmp_path).find(DIGEST) == trust.Verified("1.2.0", BUILD, "a@x", "SHA256:of-some-key", 8)


def test_date_moves_at_most_a_day_ahead_of_a_clock_that_is_set(tmp_path: pathlib.Path) -> None:
    record = record_of(tmp_path, clock=BUILD + 0.5, synced=True)
    record.remember(dataclasses.replace(RELEASE, released=JUNE_2027), DIGEST, by())
    assert record.newest_released == BUILD + DAY
    record.remember(dataclasses.replace(RELEASE, released=BUILD - YEAR), "b" * 64, by())
    assert record.newest_released == BUILD + DAY  # an older release moves nothing back
    record_of(tmp_path, clock=-YEAR, synced=True).remember(RELEASE, DIGEST, by(-5))
    assert record_of(tmp_path).damage is None


def test_record_keeps_the_last_ones_whatever_the_clock(tmp_path: pathlib.Path) -> None:
    record = record_of(tmp_path)
    digests = [hashlib.sha256(bytes([number])).hexdigest() for number in range(trust.VERIFIED_KEPT + 5)]
    for number, digest in enumerate(digests):
        record.remember(RELEASE, digest, by(10_000 - number))
        if number == 150:
            record.remember(RELEASE, digests[0], by(1))  # used again: the newest now
    content = json.loads((tmp_path / "state" / "trust.json").read_text())
    assert len(content["verified"]) == trust.VERIFIED_KEPT
    found = record_of(tmp_path)
    assert [number for number, digest in enumerate(digests) if found.find(digest) is None] == [1, 2, 3, 4, 5]
    assert (tmp_path / "state" / "trust.json").stat().st_size < trust.RECORD_LIMIT


ENTRY = {"version": "1.2.0", "released": 1, "principal": "a@x", "fingerprint": "SHA256:x", "at": 1}
DAMAGES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"{}",
    b'{"newest_released": 1}',
    b'{"newest_released": "1", "verified": {}}',
    b'{"newest_released": true, "verified": {}}',
    b'{"newest_released": -1, "verified": {}}',
    b'{"newest_released": 1e400, "verified": {}}',
    b'{"newest_released": 99999999999999999, "verified": {}}',
    b'{"newest_released": 1, "verified": [1]}',
    b'{"newest_released": ' + b"9" * 5000 + b', "verified": {}}',
    b"[" * 100_000,
    b" " * (trust.RECORD_LIMIT + 1),
    *(
        json.dumps({"newest_released": 1, "verified": verified}).encode()
        for verified in (
            {"../x": ENTRY},
            {DIGEST: None},
            {DIGEST: {}},
            {DIGEST: [1]},
            {DIGEST: ENTRY | {"more": 1}},
            {DIGEST: ENTRY | {"version": 1}},
            {DIGEST: ENTRY | {"principal": ["a@x"]}},
            {DIGEST: ENTRY | {"principal": None}},
            {DIGEST: {key: value for key, value in ENTRY.items() if key != "fingerprint"}},
            {DIGEST: ENTRY | {"at": "now"}},
            {DIGEST: ENTRY | {"released": None}},
        )
    ),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: repr(damage[:60]))
def test_damaged_record_counts_as_empty_and_is_said(tmp_path: pathlib.Path, signed, signers, damage: bytes) -> None:
    path = tmp_path / "state" / "trust.json"
    path.parent.mkdir()
    path.write_bytes(damage)
    record = record_of(tmp_path)
    assert (record.newest_released, record.find(DIGEST)) == (0, None)
    assert record.damage is not None
    assert record.damage.startswith(f"{path}, the record of verified releases, cannot be read")
    assert judged(signed, signers(), record=record).reason.endswith(record.damage)
    assert judged(signed, None, "if_present", record).reason.endswith(record.damage)
    record.remember(RELEASE, DIGEST, by())
    assert record_of(tmp_path).find(DIGEST) is not None
    assert record_of(tmp_path).damage is None


def test_record_that_is_a_folder_counts_as_empty(tmp_path: pathlib.Path) -> None:
    (tmp_path / "state" / "trust.json").mkdir(parents=True)
    record = record_of(tmp_path)
    assert "Is a directory" in str(record.damage)
    with pytest.raises(FleetError) as caught:
        record.remember(RELEASE, DIGEST, by())
    assert caught.value.code == "state_unwritable"


@given(
    st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_record_of_any_content_never_breaks(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("state")
    (folder / "trust.json").write_bytes(content)
    assert trust.TrustRecord(folder).newest_released == 0


def test_two_processes_lose_none_of_each_others_releases(tmp_path: pathlib.Path) -> None:
    (tmp_path / "manifest.json").write_bytes(BYTES)
    script = (
        "import hashlib, pathlib, sys\n"
        "from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.verify import trust\n"
        "from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import manifest\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "release = manifest.parse_manifest((folder / 'manifest.json').read_bytes(), 'x')\n"
        "for number in range(20):\n"
        "    digest = hashlib.sha256((sys.argv[2] + str(number)).encode()).hexdigest()\n"
        "    judgement = trust.Judgement(True, 'a@x', '', 'SHA256:x', 1)\n"
        "    trust.TrustRecord(folder).remember(release, digest, judgement)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path("collections").resolve())}
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), letter], env=environment) for letter in "ab"
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert len(json.loads((tmp_path / "trust.json").read_text())["verified"]) == 40


# going back


@pytest.mark.parametrize(
    ("version", "counter", "names"),
    [("1.1.9", 12, "by its version than"), ("1.2.0", 11, "by its counter than"), ("0.9.10", 1, "version and counter")],
)
def test_older_release_is_refused_unless_asked_for(version: str, counter: int, names: str) -> None:
    older = dataclasses.replace(RELEASE, version=version, counter=counter)
    with pytest.raises(InputError, match=names) as caught:
        trust.refuse_downgrade(older, RELEASE, allowed=False)
    assert caught.value.code == "downgrade"
    assert caught.value.details["deployed_version"] == "1.2.0"
    trust.refuse_downgrade(older, RELEASE, allowed=True)


def test_release_that_is_no_older_is_let_through() -> None:
    trust.refuse_downgrade(RELEASE, None, allowed=False)
    trust.refuse_downgrade(RELEASE, RELEASE, allowed=False)
    trust.refuse_downgrade(dataclasses.replace(RELEASE, version="1.10.0", counter=13), RELEASE, allowed=False)


def test_release_that_the_deployed_one_is_too_old_for_is_refused_even_when_asked_for() -> None:
    new = dataclasses.replace(RELEASE, version="2.0.0", counter=20, oldest_version="1.10.0")
    for allowed in (False, True):
        with pytest.raises(InputError, match=r"needs 1\.10\.0 or later") as caught:
            trust.refuse_downgrade(new, RELEASE, allowed=allowed)
        assert caught.value.code == "too_old"
    trust.refuse_downgrade(new, dataclasses.replace(RELEASE, version="1.10.0"), allowed=False)
