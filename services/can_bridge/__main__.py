"""``python -m services.can_bridge``: settings from the environment, log to standard error, SIGTERM ends it cleanly."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError

from .bridge import Bridge
from .bus import check_interface
from .settings import read_settings

EXIT_SETTINGS: t.Final = 2  # bad settings: starting again changes nothing


def main() -> int:
    """Run until SIGTERM or SIGINT; the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("can").setLevel(logging.CRITICAL)  # what it logs we say ourselves, rate-limited
    try:
        settings = read_settings(os.environ)
        check_interface(settings.bus)
        bridge = Bridge(settings)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: bridge.stop())
        gc.collect()
        gc.freeze()  # what was imported lives as long as we do: later collections need not look at it
        bridge.run()
    except InputError as error:
        sys.stderr.write(f"can_bridge: {error}\n")
        return EXIT_SETTINGS
    return 0


if __name__ == "__main__":
    sys.exit(main())
