"""The manifest of a backup: read as written, and no word of a hostile one is believed."""

from __future__ import annotations

import dataclasses
import json
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import backup_manifest as manifests
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.backup_manifest import (
    Identity,
    Manifest,
    Member,
)

DIGEST = "0" * 64
NAME = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._%-]{0,20}", fullmatch=True)
PATHS = st.one_of(
    st.sampled_from(["home/.env", "home/local_code/.env", "home/local_code/ca.pem"]),
    NAME.map("home/data/keys/{}".format),
    NAME.map("home/data/node-red/.{}".format),
    NAME.map("etc/{}".format),
    NAME.map("dump/trailcurrent/{}.bson".format),
)
IDS = st.integers(0, 2**31 - 1)
MEMBERS = st.builds(
    Member,
    path=PATHS,
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    size=st.integers(0, 2**40),
    mode=st.integers(0, 0o777),
    uid=IDS,
    gid=IDS,
)
MANIFESTS = st.builds(
    Manifest,
    created=st.just("2026-11-23T12:00:00Z"),
    identity=st.builds(Identity, hostname=st.just("trailcurrent01"), ca_sha256=st.sampled_from(["", DIGEST])),
    uid=IDS,
    gid=IDS,
    database=st.sampled_from([None, "trailcurrent"]),
    members=st.lists(MEMBERS, max_size=5, unique_by=lambda member: member.path).map(tuple),
)
PLAIN = Manifest(
    "2026-11-23T12:00:00Z", Identity("rv", ""), 1000, 1000, None, (Member("home/.env", DIGEST, 1, 0o600, 0, 0),)
)


@given(MANIFESTS)
def test_manifest_is_read_as_it_was_written(manifest: Manifest) -> None:
    assert manifests.decode(manifests.encode(manifest)) == manifest


@pytest.mark.parametrize(
    "path",
    [
        "../etc/shadow",
        "/etc/shadow",
        "home/../../etc/shadow",
        "home/.ssh/authorized_keys",
        "home/data/keys/../../.ssh/authorized_keys",
        "home/data/keys/..",
        "home/data/keys/a/b",
        "home/data/keys/",
        "etc/..",
        "etc/a/../b",
        "etc//b",
        "etc/a\nb",
        "etc/a\n",
        "dump/../x.bson",
        "dump/x.bson",
        "home/.env\0",
        "",
    ],
)
def test_path_that_climbs_out_of_the_places_of_a_backup_is_refused(path: str) -> None:
    members = (dataclasses.replace(PLAIN.members[0], path=path),)
    with pytest.raises(InputError) as refused:
        manifests.decode(manifests.encode(dataclasses.replace(PLAIN, members=members)))
    assert refused.value.code == "backup_damaged"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "other"),
        ("format", 2),
        ("created", "yesterday"),
        ("identity", None),
        ("identity", {"hostname": "a b", "ca_sha256": ""}),
        ("identity", {"hostname": "rv", "ca_sha256": "x"}),
        ("uid", -1),
        ("uid", True),
        ("gid", "0"),
        ("database", "../x"),
        ("members", None),
        ("members", ["home/.env"]),
        ("members", [dataclasses.asdict(PLAIN.members[0])] * 2),
        ("members", [{**dataclasses.asdict(PLAIN.members[0]), "mode": 0o4755}]),
        ("members", [{**dataclasses.asdict(PLAIN.members[0]), "sha256": "x"}]),
        ("members", [{**dataclasses.asdict(PLAIN.members[0]), "size": -1}]),
    ],
)
def test_manifest_with_a_wrong_word_is_refused(key: str, value: t.Any) -> None:
    said = json.loads(manifests.encode(PLAIN)) | {key: value}
    with pytest.raises(InputError) as refused:
        manifests.decode(json.dumps(said).encode())
    assert refused.value.code == "backup_damaged"


@given(
    st.one_of(st.binary(max_size=100), st.recursive(st.none() | st.text(), st.lists).map(json.dumps).map(str.encode))
)
def test_noise_is_no_manifest(noise: bytes) -> None:
    with pytest.raises(InputError):
        manifests.decode(noise)
