"""The states of ``deployment_bundle``: built, verified, extracted. Each returns what the module says of it."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import time
import typing as t

from ..errors import FleetError, InputError
from ..formats.bundle_table import bundle_lines
from ..formats.bundle_zip import read_head
from ..formats.manifest import Manifest, bundle_name, encode_manifest
from ..formats.table import amount
from ..journal import default_state_dir
from ..links import clock
from ..options import Options
from . import changes
from .build import builder, source
from .verify import extractor, legacy, reader, trust, verifier
from .verify.content import CHUNK_SIZE

CONTENT_MARK: t.Final = "{manifest}"
PROGRESS_STEP: t.Final = 0.5  # s between two writes of the progress, which a person reads

Json = dict[str, t.Any]
Warn = collections.abc.Callable[[str], None]
Progress = collections.abc.Callable[[str, int, int], None]


class ProgressFile:
    """Where this run is, for who looks on: the last state only, replaced whole. In memory, never on an SD card."""

    def __init__(self, path: pathlib.Path | None, clock: collections.abc.Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._said = ("", float("-inf"))

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` bytes of ``what`` are done."""
        act, at = self._said
        if self._path is None or (what == act and self._clock() - at < PROGRESS_STEP):
            return
        self._said = what, self._clock()
        scratch = self._path.with_suffix(".new")
        # Nobody's update fails because nobody can be told how far it is.
        with contextlib.suppress(OSError):
            scratch.write_text(json.dumps({"what": what, "done": done, "total": total}))
            scratch.replace(self._path)


def _path(text: str | None) -> pathlib.Path | None:
    return pathlib.Path(text).expanduser() if text else None


def _needed(options: Options, name: str) -> pathlib.Path:
    path = _path(options[name])
    if path is None:
        raise InputError("invalid_option", f"state {options['state']} needs `{name}`, which is not given; add it")
    return path


class Judge:
    """Whether a manifest is to be trusted, by the options of one run, and what this Pi has verified before."""

    def __init__(self, options: Options, subject: str, warn: Warn) -> None:
        self._warn = warn
        self._signers = _path(options["allowed_signers"])
        self._policy = options["signature_policy"]
        self._subject = subject
        self._record = trust.TrustRecord(_path(options["state_dir"]) or default_state_dir())

    def __call__(self, manifest: bytes, signature: bytes | None) -> trust.Judgement:
        """The judgement on these bytes."""
        return trust.judge(
            manifest,
            signature,
            allowed_signers=self._signers,
            policy=self._policy,
            record=self._record,
            clock=time.time,
            synced=clock.clock_is_synced,
            subject=self._subject,
        )

    def remember(self, manifest: Manifest, manifest_sha256: str, judgement: trust.Judgement) -> None:
        """Note that every byte of this release was right. A bundle is no worse because nobody can note it."""
        try:
            self._record.remember(manifest, manifest_sha256, judgement)
        except FleetError as error:
            self._warn(f"{self._subject} is what was signed, and that could not be recorded: {error}")


def built(options: Options, *, check: bool, diff: bool, progress: Progress, warn: Warn) -> Json:
    """Build the bundle of ``src`` at ``path``, unless it is there already."""
    overrides = {name: options[name] for name in ("version", "counter", "wheels", "project")}
    plan = _with_script(source.read_source(_needed(options, "src"), overrides), _path(options["deploy_script"]))
    destination = _destination(options, plan.version)
    before = changes.manifest_or_none(destination)
    made = builder.build(
        plan,
        destination,
        key=_path(options["signing_key"]),
        level=options["level"],
        cache=_path(options["cache"]),
        progress=progress,
        warn=warn,
        check=check,
    )
    last = _deployed(options, warn) or changes.last_bundle(destination.parent, made.manifest)
    if last and made.manifest.counter <= last.counter:
        warn(_counter_stands(made.manifest, last))
    return {
        "changed": made.changed,
        "path": str(destination),
        "sha256": made.sha256,
        "size": made.size,
        "signed": made.signed,
        "manifest": manifest_json(made.manifest),
        "summary": [*bundle_lines(made.manifest, made.size, _signed_by(options, made)), *_against(last, made.manifest)],
        **_compared(before or last, made.manifest, diff=diff),
    }


def _counter_stands(new: Manifest, last: Manifest) -> str:
    return (
        f"release {new.version} has counter {new.counter}, and {last.version} before it has {last.counter}: an RV takes"
        " no lower counter unless it is told to; raise `counter` in bundle.yml"
    )


def _signed_by(options: Options, made: builder.Built) -> str:
    if not made.signed:
        return "Not signed: who asks for a signature will refuse it; give a `signing_key`"
    return f"Signed with {options['signing_key']}" if options["signing_key"] else "Signed, as it was before"


def _with_script(plan: source.Source, script: pathlib.Path | None) -> source.Source:
    """The collection's own deploy.sh: Ansible sends modules out without the files that lie beside their code."""
    return dataclasses.replace(plan, deploy=script) if script and plan.deploy == source.DEFAULT_DEPLOY else plan


def _destination(options: Options, version: str) -> pathlib.Path:
    path = _needed(options, "path")
    return path if path.suffix == ".zip" else path / bundle_name(version)


def _against(last: Manifest | None, new: Manifest) -> list[str]:
    """What the operator wants to know before a release goes out over a metered link."""
    if last is None:
        return ["", "There is no earlier bundle beside it to compare with."]
    found = changes.compare(last, new)
    counts = f"{len(found.added)} added, {len(found.changed)} changed, {len(found.removed)} removed"
    return [
        "",
        f"Against release {last.version}: {counts}; a Pi that has it needs {amount(found.bytes_needed)} for this one.",
        *(f"  {mark} {path}" for mark, paths in _marked(found) for path in paths),
    ]


LISTED: t.Final = 20
"""Paths of one kind in the summary; ``--diff`` shows all."""


def _marked(found: changes.Changes) -> collections.abc.Iterator[tuple[str, list[str]]]:
    for mark, paths in (("+", found.added), ("~", found.changed), ("-", found.removed)):
        rest = [f"and {len(paths) - LISTED} more"] if len(paths) > LISTED else []
        yield mark, [*paths[:LISTED], *rest]


def _compared(last: Manifest | None, new: Manifest, *, diff: bool) -> Json:
    found = changes.compare(last, new).as_json()
    needed = found.pop("bytes_needed")
    said: Json = {"changed_files": found, "bytes_needed": needed, "last_version": last.version if last else None}
    return {**said, "diff": changes.diff(last, new)} if diff else said


def verified(options: Options, *, check: bool, diff: bool, progress: Progress, warn: Warn) -> Json:
    """Verify the bundle, or the unpacked release, at ``path``."""
    path = _existing(options)
    judge = Judge(options, path.name, warn)
    verify = verifier.verify_folder if path.is_dir() else verifier.verify
    try:
        found = verify(path, judge, progress, remember=None if check else judge.remember)
    except InputError as error:
        if not _is_taken_unsigned(error, options):
            raise
        return {"changed": False, **_inspected(path)}
    deployed = _deployed(options, warn)
    _refuse_downgrade(options, found.manifest, deployed)
    compared = _compared(deployed, found.manifest, diff=diff) if deployed else {}
    return {**_said(path, found), **compared, "changed": False}


def extracted(options: Options, *, check: bool, diff: bool, progress: Progress, warn: Warn) -> Json:
    """Verify the bundle at ``path`` and have its release in the folder ``dest``, whole or not at all."""
    path = _existing(options)
    destination = _named_by_content(_needed(options, "dest"), path)
    judge, deployed = Judge(options, path.name, warn), _deployed(options, warn)
    try:
        done = extractor.extract(
            path,
            destination,
            judge,
            progress=progress,
            check=check,
            accept=lambda manifest: _refuse_downgrade(options, manifest, deployed),
            remember=judge.remember,
            part=None if options["content"] == "all" else options["content"],
        )
    except InputError as error:
        if not _is_taken_unsigned(error, options) or options["content"] != "firmware":
            raise
        changed = legacy.extract_firmware(path, destination, check=check)
        return {"changed": changed, "dest": str(destination), **_inspected(path)}
    before = deployed if done.changed else done.manifest
    compared = _compared(before, done.manifest, diff=diff and done.changed)
    return {**_said(path, done), **compared, "changed": done.changed, "dest": str(destination)}


def _is_taken_unsigned(error: InputError, options: Options) -> bool:
    """A bundle of the old script, and a user who trusts where it comes from."""
    return error.code == "bundle_legacy" and options["signature_policy"] == "if_present"


def _named_by_content(destination: pathlib.Path, bundle: pathlib.Path) -> pathlib.Path:
    """``{manifest}`` in the folder's name: one folder for each content, known before anything is believed."""
    if CONTENT_MARK not in str(destination):
        return destination
    with reader.open_file(bundle) as (read, size):
        try:
            digest = hashlib.sha256(read_head(read, bundle.name).manifest)
        except InputError:  # of the old kind, or nothing that will be extracted
            digest = hashlib.sha256()
            for offset in range(0, size, CHUNK_SIZE):
                digest.update(read(offset, CHUNK_SIZE))
    return pathlib.Path(str(destination).replace(CONTENT_MARK, digest.hexdigest()[:16]))


def _existing(options: Options) -> pathlib.Path:
    path = _needed(options, "path")
    if not os.path.lexists(path):
        raise InputError(
            "bundle_missing",
            f"there is no bundle {path}, or none that this user may see; check `path`, or build it with package.yml",
        )
    return path


def _said(path: pathlib.Path, found: verifier.Verified) -> Json:
    return {
        "path": str(path),
        "sha256": found.sha256,
        "manifest_sha256": found.manifest_sha256,
        "size": found.size,
        "signed": found.judgement.signed,
        "principal": found.judgement.principal,
        "legacy": False,
        "manifest": manifest_json(found.manifest),
        "summary": bundle_lines(found.manifest, found.size, found.judgement.reason),
    }


def _inspected(path: pathlib.Path) -> Json:
    """What a bundle of the old kind holds; nothing vouches for it."""
    found = legacy.inspect(path)
    facts = {"signed": False, "principal": None, "legacy": True, "version": found.version, "size": found.size}
    return {"path": str(path), **facts, "summary": found.lines()}


def _deployed(options: Options, warn: Warn) -> Manifest | None:
    """The release that is deployed, where there is one; one of the old kind says too little to compare with."""
    path = _path(options["deployed"])
    if path is None or not os.path.lexists(path) or _is_without_record(path):
        return None
    try:
        return changes.read_manifest_of(path)
    except InputError as error:
        if error.code != "bundle_legacy":
            raise
        warn(f"{path} is of the old kind, without a manifest: nothing says whether this release is older")
        return None


def _is_without_record(path: pathlib.Path) -> bool:
    """Whether the record's folder is there and the record is being written, or never was: a deployment cut off."""
    return path.is_dir() and all(child.name.startswith(".") for child in path.iterdir())


def _refuse_downgrade(options: Options, new: Manifest, deployed: Manifest | None) -> None:
    trust.refuse_downgrade(new, deployed, allowed=options["allow_downgrade"])


def manifest_json(manifest: Manifest) -> Json:
    """The manifest as its file has it."""
    content: Json = json.loads(encode_manifest(manifest))
    return content
