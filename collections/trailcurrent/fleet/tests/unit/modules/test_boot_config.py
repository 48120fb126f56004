"""boot_config: which file it takes, how it writes it, and what it says."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError, LinkError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run
from ansible_collections.trailcurrent.fleet.plugins.modules import boot_config

SPI = "dtparam=spi=on"


def keep(path: pathlib.Path, *lines: str, check: bool = False, **options: t.Any) -> dict[str, t.Any]:
    given = {
        "path": str(path),
        "lines": list(lines),
        "overlays_alike": [],
        "model_file": "/nowhere",
        "state": "present",
    }
    return boot_config.keep_lines({**given, **options}, Run(check=check, diff=False, warn=print))


@pytest.fixture
def config(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "config.txt"
    path.write_bytes(b"# caf\xe9\ndtparam=audio=on\n")
    path.chmod(0o755)
    return path


def test_line_is_written_once_and_bytes_and_mode_of_the_file_stay(config: pathlib.Path) -> None:
    first, second = keep(config, SPI), keep(config, SPI)
    assert config.read_bytes() == b"# caf\xe9\ndtparam=audio=on\n[all]\ndtparam=spi=on\n"
    assert config.stat().st_mode & 0o777 == 0o755
    assert (first["changed"], first["added"], first["kept"]) == (True, [SPI], [])
    assert (second["changed"], second["added"], second["kept"]) == (False, [], [SPI])
    assert [path.name for path in config.parent.iterdir()] == ["config.txt"]


def test_check_mode_writes_nothing_and_shows_what_would_be(config: pathlib.Path) -> None:
    answer = keep(config, SPI, check=True)
    assert config.read_bytes() == b"# caf\xe9\ndtparam=audio=on\n"
    assert answer["changed"]
    assert answer["diff"]["before"] == "# caf\\udce9\ndtparam=audio=on\n"
    assert answer["diff"]["after"].endswith("\ndtparam=spi=on\n")


def test_symbolic_link_is_followed_and_not_replaced(config: pathlib.Path, tmp_path: pathlib.Path) -> None:
    link = tmp_path / "link.txt"
    link.symlink_to(config)
    assert keep(link, SPI)["path"] == str(config)
    assert link.is_symlink()
    assert SPI in config.read_text("latin-1")


def test_model_is_read_as_the_device_tree_has_it(config: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    config.write_text(f"[pi5]\n{SPI}\n")
    assert not keep(config, SPI, model_file=str(model))["changed"]
    with pytest.raises(InputError, match="under a condition"):
        keep(config, SPI)


def test_line_is_taken_out(config: pathlib.Path) -> None:
    answer = keep(config, "dtparam=audio", state="absent")
    assert (config.read_bytes(), answer["removed"]) == (b"# caf\xe9\n", ["dtparam=audio=on"])


def test_missing_file_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"There is no .*config\.txt; mount") as error:
        keep(tmp_path / "config.txt", SPI)
    assert error.value.code == "boot_config_invalid"


def test_file_that_nobody_wrote_by_hand_is_refused(config: pathlib.Path) -> None:
    config.write_bytes(b"#" * (boot_config.SIZE_LIMIT + 1))
    with pytest.raises(InputError, match="more than"):
        keep(config, SPI)


def test_file_that_cannot_be_replaced_is_as_it_was(tmp_path: pathlib.Path) -> None:
    config = tmp_path / ("x" * 250)  # the new file's name, which is longer, cannot be
    config.write_text("a=1\n")
    with pytest.raises(LinkError, match=r"File name too long.*as it was.*mount it writable") as error:
        keep(config, SPI)
    assert error.value.code == "boot_config_invalid"
    assert config.read_text() == "a=1\n"
