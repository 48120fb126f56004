"""Whether this machine's clock can be believed."""

from __future__ import annotations

import pathlib

from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import clock


def test_clock_of_a_pi_that_woke_up_in_1970_is_not_believed() -> None:
    assert not clock.is_plausible(0)
    assert not clock.is_plausible(clock.BUILD_DATE - 1)
    assert clock.is_plausible(clock.BUILD_DATE)


def test_state_of_the_clock_is_what_the_system_says() -> None:
    """Asked twice, by a machine that may or may not be set: the answer is one, and from no shell."""
    assert clock.clock_is_synced() is clock.clock_is_synced()
    assert isinstance(clock._kernel_is_synced(), bool)


def test_mark_of_timesyncd_counts_where_the_kernel_says_nothing(tmp_path: pathlib.Path, monkeypatch) -> None:
    monkeypatch.setattr(clock, "_kernel_is_synced", lambda: False)
    monkeypatch.setattr(clock, "SYNCED_MARK", tmp_path / "synchronized")
    assert not clock.clock_is_synced()
    (tmp_path / "synchronized").touch()
    assert clock.clock_is_synced()
