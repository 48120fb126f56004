"""What the outcome of a run says in one sentence: on the Pi and on the controller."""

from __future__ import annotations

import collections.abc
import typing as t

MOVED: t.Final = frozenset({"updated", "rolled_back", "would_update"})  # statuses for which both versions say something

Outcome = collections.abc.Mapping[str, t.Any]


def failure_of(outcome: Outcome) -> tuple[str | None, str] | None:
    """The code and the sentence of a run with failed modules; None when none failed."""
    failed = [result for result in outcome["results"] if result["hostname"] in outcome["failed_modules"]]
    if not failed:
        return None
    names = ", ".join(f"{result['hostname']} ({result['status']}: {result['code']})" for result in failed)
    sentence = f"{len(failed)} of {len(outcome['results'])} modules failed: {names}; see their errors in `results`"
    return failed[0]["code"], sentence


def progress_line(event: collections.abc.Mapping[str, t.Any]) -> str:
    """One line for an event of the journal."""
    subject = f"{event['hostname']} {event['type']}: " if event.get("hostname") else ""
    result = event.get("result")
    if result:
        return subject + _result_line(result)
    message = event.get("message") or ""
    return f"{subject}{event['phase']}{', ' if message else ''}{message}"


def _result_line(result: collections.abc.Mapping[str, t.Any]) -> str:
    spent = sum(result["seconds"].values())
    facts = [
        " -> ".join(part for part in (result["from_version"], result["to_version"]) if part),
        f"proof: {result['proof']}" if result["proof"] else "",
        f"{spent:.1f} s" if spent else "",
    ]
    shown = facts if result["status"] in MOVED else facts[2:]
    brackets = f" ({', '.join(fact for fact in shown if fact)})" if any(shown) else ""
    why = result["error"] or result["detail"]
    return f"{result['status']}{brackets}" + (f": {why}" if why else "")


def percent_line(hostname: str, state: collections.abc.Mapping[str, t.Any]) -> str | None:
    """One line for an upload under way; None when the module is not uploading."""
    if "percent" not in state:
        return None
    return f"{hostname}: {state['percent']:3d} % at {state['rate'] / 1000:.0f} kB/s"
