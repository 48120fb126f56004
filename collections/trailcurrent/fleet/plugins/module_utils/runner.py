"""The one file that knows Ansible: builds the module, runs its act, translates errors, exits."""

from __future__ import annotations

import collections.abc
import dataclasses
import traceback
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from .errors import FleetError
from .options import Options


@dataclasses.dataclass(frozen=True)
class Run:
    """How this run of a module was asked for."""

    check: bool
    diff: bool
    warn: collections.abc.Callable[[str], None]


Act = collections.abc.Callable[[Options, Run], dict[str, t.Any]]


def run_module(
    act: Act,
    *options: Options,
    requires: collections.abc.Mapping[str, ImportError | None] | None = None,
    **constraints: t.Any,
) -> None:
    """Run ``act`` on the module's options and leave with its result, or with its error as one sentence.

    :param act: takes the options and the run, returns the result; raises ``FleetError``
    :param options: option sets, merged; a later one wins
    :param requires: third-party distribution -> the error of its import, or None when it is there
    :param constraints: what ``AnsibleModule`` takes besides (``required_if`` and so on)
    """
    spec = {name: option for part in options for name, option in part.items()}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True, **constraints)
    for name, missing in (requires or {}).items():
        if missing is not None:
            module.fail_json(msg=missing_required_lib(name), exception="".join(traceback.format_exception(missing)))
    run = Run(check=module.check_mode, diff=module._diff, warn=module.warn)
    try:
        result = act(module.params, run)
    except FleetError as error:
        module.fail_json(msg=str(error), code=error.code, **error.details)
    module.exit_json(**result)
