"""A file of Ansible Vault that was cut off is told from one with another password."""

from __future__ import annotations

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.vault_text import check_whole

SECRET = VaultSecret(b"password")


def locked(plain: bytes, label: str | None = None) -> bytes:
    text: bytes = VaultLib([("default", SECRET)]).encrypt(plain, SECRET, vault_id=label, salt="5" * 32)
    return text


WHOLE = [locked(bytes(size)) for size in (0, 1, 15, 16, 17, 31, 32, 100, 1000)]


@pytest.mark.parametrize("label", [None, "rvs"])
def test_what_ansible_writes_is_whole(label: str | None) -> None:
    check_whole(locked(b"x" * 100, label), "x")
    check_whole(locked(b"x" * 100, label).replace(b"\n", b"\r\n"), "x")


@pytest.mark.parametrize("whole", WHOLE, ids=len)
def test_each_cut_is_found(whole: bytes) -> None:
    check_whole(whole, "x")
    for cut in range(len(whole)):
        with pytest.raises(InputError) as refused:
            check_whole(whole[:cut], "wanderer.vault")
        assert refused.value.code == "backup_damaged"
        assert "wanderer.vault" in str(refused.value)


@given(st.integers(1, 30))
def test_missing_line_is_found(line: int) -> None:
    lines = locked(bytes(1000)).split(b"\n")
    del lines[line]
    with pytest.raises(InputError):
        check_whole(b"\n".join(lines), "x")


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"PK\3\4", b"$ANSIBLE_VAULT;1.1;AES256\n", b"$ANSIBLE_VAULT;1.1;AES256\nxyz\n"]
)
def test_foreign_file_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(InputError):
        check_whole(content, "x")
