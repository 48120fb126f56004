"""What a run over many RVs has come to: rows for people, and one object for programs.

Sources: DESIGN.md, ``firmware_rollout`` (statuses) and "The table and the report file of a playbook"; issue 3, part 7
(an RV in a garage is reported ``not_reached`` and is no failure).
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import textwrap
import typing as t

from ..text import printable
from .registry import display_name
from .table import Column, Table

FORMAT: t.Final = 1
"""Of the report file; goes up when a key changes its meaning."""
FAILING: t.Final = frozenset({"failed", "rolled_back", "unknown", "not_reached", "reverted"})
"""Statuses of a module that fail a run."""
RV_FAILING: t.Final = frozenset({"failed", "link_lost", "login_refused"})
"""Statuses of an RV that fail a run; ``done``, ``not_reached`` and ``held_back`` do not."""
SENTENCE_LIMIT: t.Final = 600  # characters of an error; the longest of ours has some 300
MIN_WIDTH: t.Final = 100  # columns
INDENT: t.Final = "      "
_REFUSALS: t.Final = ("permission denied", "host key verification failed", "too many authentication failures")
"""What OpenSSH says when the RV is there, and does not let us in; in lower case."""

_PREFIX: t.Final = "Task failed: "  # what ansible-core 2.19 puts before every message
_CONTACT: t.Final = {
    "not_reached": "could not be reached; run it again when it can be",
    "login_refused": "answered, and let nobody in; correct its user, its key or its entry in known_hosts",
}

Json = dict[str, t.Any]
Words = collections.abc.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Rv:
    """One RV's outcome.

    :param status: ``done``, ``failed``, ``not_reached``, ``link_lost``, ``login_refused`` or ``held_back``
    :param results: what ``firmware_rollout`` returned, one for each module
    :param said: what came of it, where it concerned no modules
    :param host: what ``rv_info`` returned
    """

    name: str
    status: str
    code: str | None
    error: str | None
    results: tuple[Json, ...]
    said: str = ""
    host: Json = dataclasses.field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether the run failed because of this RV."""
        return self.status in RV_FAILING or bool(self.failed_modules)

    @property
    def failed_modules(self) -> tuple[Json, ...]:
        """The results that fail the run."""
        return tuple(result for result in self.results if result["status"] in FAILING)

    def as_json(self) -> Json:
        """This RV in the report file."""
        return {
            "status": self.status,
            "ok": not self.failed,
            "code": self.code,
            "error": self.error,
            "modules": list(self.results),
            **({"said": self.said} if self.said else {}),
            **({"host": self.host} if self.host else {}),
        }


RUN: t.Final = "rollout"
STATUS: t.Final = "status"
RVS: t.Final = "rvs"
COLUMNS: t.Final = {
    RUN: (
        Column("RV", 16),
        Column("module", 12),
        Column("kind", 24),
        Column("status", 26),
        Column("version", 24),
        Column("proof", 7),
        Column("time", 7),
    ),
    STATUS: (
        Column("RV", 16),
        Column("module", 12),
        Column("kind", 24),
        Column("runs", 12),
        Column("image", 12),
        Column("status", 26),
        Column("last result", 24),
    ),
    RVS: (Column("RV", 16), Column("status", 14), Column("result", 100)),
}
"""By kind of table: what a run did to the modules, what an RV is like, or what a run did to the RVs themselves."""
HOST_COLUMNS: t.Final = (
    Column("RV", 16),
    Column("system", 14),
    Column("services", 40),
    Column("disk free", 10),
    Column("certificate", 12),
    Column("CA", 12),
    Column("clock", 14),
)


def contact_status(message: str) -> str:
    """Why a first contact failed: ``login_refused`` when the RV answered and let nobody in, else ``not_reached``."""
    said = message.lower()
    return "login_refused" if any(words in said for words in _REFUSALS) else "not_reached"


def read_rvs(raw: collections.abc.Mapping[str, object]) -> tuple[Rv, ...]:
    """The RVs of a run, by name. An RV without a usable record has failed: nobody knows what became of it.

    :param raw: RV -> ``{status, code, error, results}``; all but ``status`` may be absent
    """
    return tuple(_rv(name, raw[name]) for name in sorted(raw))


def _rv(name: str, said: object) -> Rv:
    if not isinstance(said, collections.abc.Mapping) or "status" not in said:
        return Rv(name, "failed", "interrupted", f"{name} had its turn and left no result; run it again.", ())
    status, error = str(said["status"]), said.get("error")
    if status == "not_reached":
        status = contact_status(str(error or ""))
        error = f"{name} {_CONTACT[status]} ({str(error or 'no answer').removeprefix(_PREFIX)})"
    results = tuple(dict(row) for row in said.get("results") or () if _is_result(row))
    text = printable(str(error), SENTENCE_LIMIT) if error else None
    code = said.get("code") or (status if status != "done" else None)
    host = said.get("host") or {}
    words = printable(str(said.get("said") or ""), SENTENCE_LIMIT)
    return Rv(name, status, code, text, results, words, dict(host) if isinstance(host, collections.abc.Mapping) else {})


def _is_result(row: object) -> bool:
    return isinstance(row, collections.abc.Mapping) and "hostname" in row and "status" in row


def table(rvs: collections.abc.Sequence[Rv], width: int = MIN_WIDTH, kind: str = RUN) -> list[str]:
    """The lines of the summary: a row for each module, under it what went wrong.

    :param width: columns that a sentence may take; rows take what they need, at most the limits of ``COLUMNS``
    :param kind: ``RUN`` or ``STATUS``
    """
    rows_of = _rv_row if kind == RVS else _rows_of
    rows = [(row, note) for rv in rvs for row, note in rows_of(rv, kind)]
    shown = Table(COLUMNS[kind], [row for row, _note in rows])
    lines = shown.head()
    for row, note in rows:
        lines.append(shown.line(row))
        lines.extend(_wrapped(note, max(width, MIN_WIDTH)))
    return lines


def host_table(rvs: collections.abc.Sequence[Rv]) -> list[str]:
    """The lines of the table of the RVs' own computers; none where nothing was asked of them."""
    rows = [_host_cells(rv) for rv in rvs if rv.host]
    if not rows:
        return []
    shown = Table(HOST_COLUMNS, rows)
    return [*shown.head(), *map(shown.line, rows), ""]


def _host_cells(rv: Rv) -> list[str]:
    host = rv.host
    faulty = [f"{name} {state}" for name, state in (host.get("services") or {}).items() if state != "active"]
    cells = (
        rv.name,
        host.get("system", "?"),
        ", ".join(faulty) or ("ok" if host.get("services") else "none"),
        f"{host['disk_free'] / 1e9:.1f} GB" if isinstance(host.get("disk_free"), int) else "?",
        _days(host.get("certificate_days")),
        _days(host.get("ca_days")),
        host.get("clock", "?"),
    )
    return [printable(str(cell)) for cell in cells]


def _days(days: object) -> str:
    if not isinstance(days, int):
        return "none"
    return f"{days} days" if days >= 0 else "EXPIRED"


def _rv_row(rv: Rv, _kind: str) -> collections.abc.Iterator[tuple[list[str], str]]:
    """The one row of an RV in a table that has no modules."""
    status = "ok" if rv.status == "done" else rv.status
    yield [rv.name, status, rv.said], _sentence(rv.code, rv.error)


def _rows_of(rv: Rv, kind: str) -> collections.abc.Iterator[tuple[list[str], str]]:
    """The rows of an RV, each with its sentence. An RV that has no module's error to show has a row of its own."""
    own_error = rv.status in RV_FAILING and not rv.failed_modules
    if own_error or not rv.results:
        heads = [column.head for column in COLUMNS[kind]]
        row = dict.fromkeys(heads, "") | {"RV": rv.name, "status": "no modules" if rv.status == "done" else rv.status}
        yield list(row.values()), _sentence(rv.code, rv.error)
    for result in rv.results:
        cells = [rv.name, result["hostname"], display_name(str(result.get("type") or "")), *_CELLS[kind](result)]
        yield [printable(str(cell)) for cell in cells], _sentence(result.get("code"), result.get("error"))


def _run_cells(result: Json) -> tuple[object, ...]:
    seconds = sum(value for value in (result.get("seconds") or {}).values() if isinstance(value, (int, float)))
    return _status(result), _version(result), result.get("proof") or "", _time(seconds)


def _status_cells(result: Json) -> tuple[object, ...]:
    last = result.get("last") or {}
    words = " ".join(str(last[key]) for key in ("status", "to_version") if last.get(key))
    return result.get("from_version") or "?", result.get("to_version") or "none", _status(result), words


_CELLS: t.Final[dict[str, collections.abc.Callable[[Json], tuple[object, ...]]]] = {
    RUN: _run_cells,
    STATUS: _status_cells,
}


def _status(result: Json) -> str:
    """The status, with the code of a module that was left alone; what went wrong has a sentence of its own."""
    code = None if result.get("error") else result.get("code")
    return f"{result['status']} ({code})" if code else str(result["status"])


def _version(result: Json) -> str:
    before, after = result.get("from_version"), result.get("to_version")
    if result["status"] in ("updated", "would_update"):
        return f"{before or '?'} → {after or '?'}" if before != after else str(after or "?")
    if result["status"] == "up_to_date":
        return str(after or before or "?")
    return str(before or "?") if before in (after, None) or not after else f"{before} (not {after})"


def _time(seconds: float) -> str:
    if seconds <= 0:
        return ""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)}:{int(seconds % 60):02} m"


def _sentence(code: object, error: object) -> str:
    if not error:
        return ""
    return f"{code}: {printable(str(error), SENTENCE_LIMIT)}" if code else printable(str(error), SENTENCE_LIMIT)


def _wrapped(note: str, width: int) -> list[str]:
    return textwrap.wrap(note, width, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False)


def counts(rvs: collections.abc.Iterable[Rv]) -> dict[str, int]:
    """How many modules ended in each status, the most frequent first."""
    counted = collections.Counter(str(result["status"]) for rv in rvs for result in rv.results)
    return dict(counted.most_common())


def totals(rvs: collections.abc.Sequence[Rv], kind: str = RUN) -> list[str]:
    """One line on the modules, and one on the RVs."""
    modules, stations = counts(rvs), collections.Counter(_standing(rv) for rv in rvs)
    of_modules = [] if kind == RVS else [f"Modules: {_enumerated(modules) or 'none'}"]
    return [*of_modules, f"RVs: {_enumerated(dict(stations.most_common())) or 'none'}"]


def _standing(rv: Rv) -> str:
    if rv.status != "done":
        return rv.status
    return "failed" if rv.failed else "ok"


def _enumerated(numbers: collections.abc.Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in numbers.items())


def as_json(rvs: collections.abc.Sequence[Rv], at: str) -> Json:
    """The report file.

    :param at: when the run ended, ISO 8601 with its zone
    """
    return {
        "format": FORMAT,
        "at": at,
        "ok": not any(rv.failed for rv in rvs),
        "totals": counts(rvs),
        "rvs": {rv.name: rv.as_json() for rv in rvs},
    }


def verdict(rv: Rv) -> str:
    """Why the run failed because of this RV, in one sentence."""
    failed = [f"{result['hostname']} {result['status']}" for result in rv.failed_modules]
    if failed:
        share = f"{len(failed)} of {len(rv.results)} modules failed"
        return f"{rv.name}: {share} ({', '.join(failed)}); the table above says why."
    return f"{rv.name}: {rv.error or rv.status}"
