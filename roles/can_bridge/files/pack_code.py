"""Pack the bridge's code on the laptop: its own files, and those of module_utils that they import, and no others.

Prints a JSON object with ``digest`` (of the files' names and content: another name for the same code) and ``archive``,
a .tar.gz in the folder that the command line names. It works in the clone and in the installed collection alike.
"""

from __future__ import annotations

import ast
import collections.abc
import hashlib
import io
import json
import pathlib
import sys
import tarfile
import tempfile

SERVICE = "services.can_bridge"
UTILS = "ansible_collections.trailcurrent.fleet.plugins.module_utils"
HOME = pathlib.Path(__file__).resolve().parents[3]
"""The clone, or the installed collection: the folder that holds roles/ and services/."""
UTILS_PLACES = ("collections/trailcurrent/fleet/plugins/module_utils", "plugins/module_utils")
DIGITS = 16  # of the digest; it names a folder

Files = dict[str, pathlib.Path]


def utils_folder() -> pathlib.Path:
    """Where module_utils is."""
    return next(HOME / place for place in UTILS_PLACES if (HOME / place).is_dir())


def imported(path: pathlib.Path, module: str) -> set[str]:
    """Every name that a file may import, by its full name; ``from x import y`` gives x and x.y."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {name, *(f"{name}.{alias.name}" for alias in node.names)}
    return found


def file_of(module: str, root: pathlib.Path) -> pathlib.Path | None:
    """The file below module_utils that a name stands for; None where it is none of ours."""
    if module != UTILS and not module.startswith(f"{UTILS}."):
        return None
    place = root.joinpath(*module.removeprefix(UTILS).split("."))
    return next((path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()), None)


def packages(module: str) -> collections.abc.Iterator[str]:
    """The name and those of the packages that it is in, which are imported with it."""
    parts = module.split(".")
    yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def code() -> Files:
    """Path in the archive -> file."""
    services = HOME / "services"
    own = [services / "__init__.py", *sorted((HOME / SERVICE.replace(".", "/")).glob("*.py"))]
    files = {path.relative_to(HOME).as_posix(): path for path in own}
    names = {name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): path for name, path in files.items()}
    waiting, root = list(names.items()), utils_folder()
    while waiting:
        module, path = waiting.pop()
        for name in {part for found in imported(path, module) for part in packages(found)}:
            used = file_of(name, root)
            if used is None:
                continue
            key = f"collections/{UTILS.replace('.', '/')}/{used.relative_to(root).as_posix()}"
            if key not in files:
                files[key] = used
                waiting.append((name, used))
    return files


def digest(files: Files) -> str:
    """One for the same names and content; files/service.py finds it on the Pi in the same way."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name} {hashlib.sha256(files[name].read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:DIGITS]


def pack(files: Files) -> bytes:
    """A .tar.gz of them."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in sorted(files):
            content = files[name].read_bytes()
            member = tarfile.TarInfo(name)
            member.mode, member.size = 0o644, len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def main() -> None:
    """Write the archive into the folder that the command line names."""
    folder = pathlib.Path(sys.argv[1]).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    files = code()
    archive = folder / f"can_bridge-{digest(files)}.tar.gz"
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as fresh:
        fresh.write(pack(files))
    pathlib.Path(fresh.name).replace(archive)
    sys.stdout.write(json.dumps({"digest": digest(files), "archive": str(archive)}))


if __name__ == "__main__":
    main()
