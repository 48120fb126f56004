"""A YAML file that people write: no tags, no key twice, and times left as the text that they are."""

from __future__ import annotations

import pathlib
import sys
import typing as t

from ..errors import InputError, LinkError
from ..text import printable

try:
    import yaml
except ImportError as missing:
    YAML_MISSING: ImportError | None = missing
else:
    YAML_MISSING = None

    class _Loader(yaml.SafeLoader):
        """The safe loader, stricter."""

        # `2026-11-01` would become a date.
        yaml_implicit_resolvers = {  # noqa: RUF012
            letter: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
            for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[t.Any, t.Any]:
            """A mapping without a key that is there twice: PyYAML takes the last one without a word."""
            names = [key.value for key, _value in node.value if isinstance(key, yaml.ScalarNode)]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{twice}` is there twice", node.start_mark
                )
            return super().construct_mapping(node, deep)


LIMIT: t.Final = 1024 * 1024  # bytes; nobody writes so much by hand


def read_yaml(path: pathlib.Path) -> object:
    """What a YAML file says, in plain Python objects.

    :raises InputError: ``source_missing``; ``source_invalid`` with the line where it cannot be read
    """
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise InputError(
            "source_missing", f"{path} cannot be read: {error.strerror}; write it, or correct its path.", path=str(path)
        ) from error
    if len(data) > LIMIT:
        raise _invalid(path, f"it has more than {LIMIT} bytes")
    return parse_yaml(data, path)


def parse_yaml(data: bytes, path: pathlib.Path) -> object:
    """The document in ``data``.

    :param path: where it comes from, for the sentence
    :raises InputError: ``source_invalid``
    :raises LinkError: ``requirement_unmet``
    """
    if YAML_MISSING is not None:
        raise LinkError(
            "requirement_unmet",
            f"{path} cannot be read by {sys.executable}: it has no PyYAML; install PyYAML for that Python.",
        ) from YAML_MISSING
    try:
        return yaml.load(data, _Loader)  # that one is a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise _invalid(path, where + printable(error.problem or "it is no YAML")) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _invalid(path, printable(str(error)) or "it is nested too deep") from error


def _invalid(path: pathlib.Path, seen: str) -> InputError:
    return InputError("source_invalid", f"{path} cannot be read as YAML: {seen}; correct it.", path=str(path))
