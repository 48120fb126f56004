"""allowed_signers: read as OpenSSH reads it, and what cannot be read is named by its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.allowed_signers import (
    matches,
    parse_allowed_signers,
)

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMUdi2wd/flTYeW7BDXPPq2d96XmtgXfgYgEcxdVOm1J"
NOON_2027 = 1_798_804_800


def test_lines_are_read_with_their_numbers() -> None:
    text = (
        "# who may sign\n\n"
        f"release@example.com {KEY} the laptop\r\n"
        f'\ta@x,b@x Namespaces="trailcurrent-deployment,file",CERT-AUTHORITY  {KEY}\n'
        f'"c d" valid-after="20270101",valid-before="202701011200Z" {KEY}'
    )
    first, second, third = parse_allowed_signers(text, "x")
    assert (first.principals, first.line, first.comment) == (("release@example.com",), 3, "the laptop")
    assert (first.namespaces, first.valid_after, first.valid_before, first.cert_authority) == (None, None, None, False)
    assert (second.principals, second.line) == (("a@x", "b@x"), 4)
    assert (second.namespaces, second.cert_authority) == (("trailcurrent-deployment", "file"), True)
    assert (third.principals, third.valid_after, third.valid_before) == (
        ("c d",),
        NOON_2027 - 12 * 3600,
        NOON_2027,
    )
    assert {signer.key_type for signer in (first, second, third)} == {"ssh-ed25519"}
    assert len({signer.public_key for signer in (first, second, third)}) == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("garbage", "no key"),
        ("a@b ssh-ed25519", "no key that can be read"),
        ("a@b ssh-ed25519 AAAA", "no key that can be read"),
        (f"a@b ssh-rsa {KEY.split()[1]}", "no key that can be read"),
        (f"a@b bogus {KEY}", "no option"),
        (f'a@b bogus="x" {KEY}', "no option"),
        (f"a@b namespaces=file {KEY}", "not quoted"),
        (f'a@b namespaces="a"namespaces="b" {KEY}', "comma"),
        (f'a@b namespaces="a",namespaces="b" {KEY}', "twice"),
        (f'a@b namespaces="a", {KEY}', "comma"),
        (f'a@b namespaces="a b {KEY}', "no key"),
        (f'a@b valid-after="2027" {KEY}', "not a time"),
        (f'a@b valid-after="20271301" {KEY}', "not a time"),
        (f'a@b valid-before="20270101246000" {KEY}', "not a time"),
        (f'a@b valid-before="19700101" {KEY}', "after 1970"),
        (f'a@b valid-before="19691231" {KEY}', "after 1970"),
        (f'a@b valid-after="20270101",valid-before="20260101" {KEY}', "not after"),
        (f'"" {KEY}', "name"),
        (f'"a@b {KEY}', "name"),
        ("a@b \x1b[2J\x07 x", "no key"),
    ],
)
def test_line_that_cannot_be_used_is_named_by_its_number(line: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        parse_allowed_signers(f"ok@x {KEY}\n#\n{line}\n", "/etc/trailcurrent/allowed_signers")
    assert caught.value.code == "invalid_signers"
    assert str(caught.value).startswith("line 3 of /etc/trailcurrent/allowed_signers")
    assert caught.value.details["line"] == 3
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("patterns", "fits"),
    [
        (["trailcurrent-deployment"], True),
        (["trail*"], True),
        (["*"], True),
        (["?railcurrent-deploymen?"], True),
        (["x", "trail*"], True),
        (["!trail*", "*"], False),
        (["*", "!trailcurrent-deployment"], False),
        (["!x"], False),
        (["TRAIL*"], False),
        (["[t]rail*"], False),
        (["trailcurrent"], False),
        ([""], False),
        ([], False),
    ],
    ids=str,
)
def test_patterns_fit_as_openssh_fits_them(patterns: list[str], fits: bool) -> None:
    assert matches("trailcurrent-deployment", patterns) is fits


@given(st.text(max_size=200) | st.from_regex(r'[ab*]{1,3} [a-z-]{0,12}="[^"]{0,9}",? ssh-ed25519 [A-Za-z0-9=]{0,40}'))
def test_any_text_is_read_or_refused_by_line(text: str) -> None:
    try:
        parse_allowed_signers(text, "x")
    except InputError as error:
        assert error.code == "invalid_signers"
        assert str(error).isprintable()
