"""Whether updates are wanted on this RV just now: the inhibit file and the preconditions (FIELD.md, update locks)."""

from __future__ import annotations

import collections.abc
import pathlib
import typing as t

from ..text import printable
from .preconditions import Precondition

if t.TYPE_CHECKING:
    from .engine import World
    from .ports import Bus

INHIBIT_LIMIT: t.Final = 1000  # bytes read of the inhibit file


class Gatekeeper:
    """Asked at every start of a module. An ``override`` (a reason, which the journal keeps) opens every gate."""

    def __init__(
        self,
        inhibit_files: collections.abc.Sequence[pathlib.Path],
        conditions: collections.abc.Sequence[Precondition],
        override: str | None,
        bus: Bus,
    ) -> None:
        self._inhibit_files = inhibit_files
        self._conditions = conditions
        self._override = override
        self._bus = bus

    def announce(self, world: World) -> None:
        """Record the override."""
        if self._override is not None:
            world.tell(None, "override", f"inhibit file and preconditions are overridden: {printable(self._override)}")

    async def refusal(self) -> tuple[str, str] | None:
        """Why no module may start now, as code and sentence; None when one may.

        Waits for a value that has not come yet, as long as that value may be old.
        """
        if self._override is not None:
            return None
        found = (self._inhibited(file) for file in self._inhibit_files)
        return next((refusal for refusal in found if refusal), None) or await self._unmet()

    @staticmethod
    def _inhibited(path: pathlib.Path) -> tuple[str, str] | None:
        try:
            with path.open("rb") as file:
                reason = printable(file.read(INHIBIT_LIMIT)) or "no reason given"
        except FileNotFoundError:
            return None
        except OSError as error:
            reason = f"it cannot be read: {error.strerror}"
        return (
            "inhibited",
            f"not started, because {path} asks for no updates ({reason}); remove the file, or give"
            " `override` with a reason",
        )

    async def _unmet(self) -> tuple[str, str] | None:
        for index, condition in enumerate(self._conditions):
            value = await self._bus.condition(index)
            if value is None:
                return (
                    "precondition_unknown",
                    f"not started, because {condition.source} brought no value of `{condition.field}` within"
                    f" {condition.max_age:.0f} s ({condition.hint}); check that source, or give `override`",
                )
            if not condition.holds(value):
                return (
                    "precondition_failed",
                    f"not started: {condition.hint} (saw {printable(str(value))}, expected {condition.sign}"
                    f" {condition.bound}); make it true, or give `override` with a reason",
                )
        return None
