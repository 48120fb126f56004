"""Docker and Podman on the machine that builds bundles, asked through their own commands."""

from __future__ import annotations

import collections.abc
import pathlib
import re
import subprocess
import tempfile
import typing as t

from ..errors import FleetError, InputError, LinkError
from ..text import printable

ENGINES: t.Final = ("docker", "podman")
ASK_TIMEOUT: t.Final = 30.0  # s; an engine answers in milliseconds, or in some seconds while it loads images
SAVE_TIMEOUT: t.Final = 3600.0  # s; 16 GB from a slow disk
BUILD_TIMEOUT: t.Final = 4 * 3600.0  # s; a large image for another processor, emulated
LOG_SHOWN: t.Final = 400  # bytes of what an engine said at its end, in an error

# The reference grammar of both, roughly: no option can pass for a name.
_NAME: t.Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}", re.ASCII)
_ID: t.Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


class Engine:
    """One engine that answers.

    :param program: ``docker`` or ``podman``
    """

    def __init__(self, program: str) -> None:
        self.program: t.Final = program

    def has(self, name: str) -> bool:
        """Whether it knows an image by that name. :raises LinkError: ``engine_unavailable``"""
        status, _said = _run([self.program, "image", "inspect", "--format", "{{.Id}}", name], ASK_TIMEOUT)
        return status == 0

    def save(self, image: str, path: pathlib.Path) -> None:
        """Write the image (a name or an id) to ``path``, in Docker's archive format.

        :raises InputError: ``image_invalid``, with what the engine said
        :raises LinkError: ``engine_unavailable``
        """
        kind = ["--quiet", "--format", "docker-archive"] if self.program == "podman" else []
        status, said = _run([self.program, "save", *kind, "--output", str(path), image], SAVE_TIMEOUT)
        if status != 0:
            raise InputError(
                "image_invalid",
                f"The image {printable(image)} could not be saved: {self.program} says {said!r}; "
                "free space, or build or pull it again.",
                image=printable(image),
            )

    def build(
        self,
        name: str,
        context: pathlib.Path,
        file: str,
        platform: str | None,
        arguments: collections.abc.Mapping[str, str],
    ) -> str:
        """Build an image and return its id. What ``.dockerignore`` excludes, the engine leaves out.

        It gets no tag: the user's ``:latest`` stays where it is.

        :param name: what an error calls it
        :param file: the Dockerfile, relative to ``context``
        :param platform: for instance ``linux/arm64``; None for the engine's own
        :raises InputError: ``source_invalid``, with the end of what the engine said
        :raises LinkError: ``engine_unavailable``
        """
        with tempfile.TemporaryDirectory() as scratch:
            id_file = pathlib.Path(scratch) / "id"
            command = [self.program, "build", "--iidfile", str(id_file), "--file", str(context / file)]
            command += ["--platform", platform] if platform else []
            command += [word for key, value in sorted(arguments.items()) for word in ("--build-arg", f"{key}={value}")]
            status, said = _run([*command, str(context)], BUILD_TIMEOUT)
            built = _ID.fullmatch(id_file.read_text().strip()) if status == 0 and id_file.is_file() else None
        if built is None:
            raise InputError(
                "source_invalid",
                f"The image {printable(name)} could not be built: {self.program} says {said!r}; "
                "correct what it names, then build the bundle again.",
                image=printable(name),
            )
        return built[1]


def check_name(name: str) -> None:
    """``InputError`` source_invalid when no image can have that name."""
    if not _NAME.fullmatch(name):
        raise InputError(
            "source_invalid",
            f"The image {printable(name)!r} cannot go into the bundle: no image can have that name; correct it in "
            "bundle.yml.",
        )


def find_engine(program: str | None = None, image: str | None = None) -> Engine:
    """The engine of that name; without one, the first that answers, and has the image where one is asked for.

    :raises InputError: ``image_unknown`` when engines answer, and none has the image; ``source_invalid``
    :raises LinkError: ``engine_unavailable`` when none answers
    """
    if program not in {None, *ENGINES}:
        raise InputError(
            "source_invalid",
            f"The engine {printable(str(program))!r} is not known; give one of {', '.join(ENGINES)}, or none.",
        )
    if image is not None:
        check_name(image)
    answering = _answering([program] if program else list(ENGINES))
    having = [engine for engine in answering if image is None or engine.has(image)]
    if not having:
        asked = " and ".join(engine.program for engine in answering)
        raise InputError(
            "image_unknown",
            f"The image {image} cannot go into the bundle: {asked} has none of that name; "
            "build or pull it, or correct its name in bundle.yml.",
            image=image,
        )
    return having[0]


def _answering(programs: list[str]) -> list[Engine]:
    found, seen = [], []
    for program in programs:
        try:
            status, said = _run([program, "version", "--format", "{{.Server.Version}}"], ASK_TIMEOUT)
        except FleetError as error:
            seen.append(f"{program}: {error.details['seen']}")
            continue
        if status == 0:
            found.append(Engine(program))
        else:
            seen.append(f"{program}: it says {said!r}")
    if not found:
        raise LinkError(
            "engine_unavailable",
            f"No container engine can be asked for images: {'; '.join(seen)}; start it, or give the image as a tar.",
        )
    return found


def _run(command: list[str], timeout: float) -> tuple[int, str]:
    """Exit status and the end of all that it said; its output is kept on disk, however much it is."""
    with tempfile.TemporaryFile() as log:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise _unavailable(command[0], f"it did not end `{command[1]}` within {timeout:g} s") from None
        except OSError as error:
            raise _unavailable(command[0], f"it cannot be run ({error.strerror})") from None
        log.seek(max(0, log.tell() - LOG_SHOWN))
        return done.returncode, printable(log.read(), LOG_SHOWN)


def _unavailable(program: str, seen: str) -> LinkError:
    return LinkError(
        "engine_unavailable",
        f"{program} cannot be asked for images: {seen}; start it, or give the image as a tar.",
        engine=program,
        seen=seen,
    )
