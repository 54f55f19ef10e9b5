"""Whether Beam knows the options that stand after `--`. Beam itself passes over what it does not know."""

import importlib
import logging
from collections.abc import Sequence
from typing import Any, NoReturn

from lvae.manifests.errors import LvaeError


def unknown_options(options: Sequence[str], runner: str) -> list[str]:
    """The words that no options class of Beam takes; LvaeError for a value that one refuses.

    runner: where it is named with its module, that module may bring options of its own.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # Beam complains about optional packages while it loads
    try:
        from apache_beam.options.pipeline_options import PipelineOptions

        if "." in runner:
            importlib.import_module(runner.rpartition(".")[0])
    finally:
        logging.disable(before)
    parsers: list[Any] = []
    PipelineOptions([]).get_all_options(add_extra_args_fn=parsers.append)
    parser = parsers[0]
    parser.error = _refuse
    found: list[str] = parser.parse_known_args(list(options))[1]
    return found


def _refuse(message: str) -> NoReturn:
    raise LvaeError(f"a Beam option after --: {message}. 'lvae encode SOURCE DATASET -- --help' shows them all.")
