"""One image for one module, outside a rollout: what the upload modules share, whatever transport they speak."""

from __future__ import annotations

import asyncio
import collections.abc
import dataclasses
import typing as t

from ..formats.esp_image import parse_image
from ..formats.hostname import ModuleName, parse_hostname
from ..links.firmware_file import read_firmware
from ..links.transfer import Uploaded
from ..options import Options

Send = collections.abc.Callable[[ModuleName, bytes], collections.abc.Coroutine[t.Any, t.Any, Uploaded]]


def upload_firmware(options: Options, send: Send, *, check: bool) -> dict[str, t.Any]:
    """Check the image and upload it, or say what would be uploaded.

    :param options: those of ``options.UPLOAD``
    :param send: finds the module and brings it the image; not called in check mode
    :raises FleetError: the name, the file or the image cannot be used; what ``send`` raises
    """
    name = parse_hostname(options["hostname"])
    data = read_firmware(options["firmware"])
    image = parse_image(data, options["firmware"])
    facts = {"changed": True, "bytes": image.size, "sha256": image.sha256, "version": image.version}
    if check:
        return {**facts, "msg": f"Would upload {image.size:,} bytes to {name.text}."}
    uploaded = asyncio.run(send(name, data))
    done = f"Uploaded {uploaded.bytes:,} bytes to {name.text} at {uploaded.address} in {uploaded.seconds:.1f} s."
    return {**facts, **dataclasses.asdict(uploaded), "msg": done}
