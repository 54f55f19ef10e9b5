"""Repeating a call while the storage or the network fails."""

import logging
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
logger = logging.getLogger(__name__)

DELAYS = (0.25, 1.0, 4.0)  # seconds before each further try of `patiently`, give or take a half


def patiently(call: Callable[..., T], *arguments: Any) -> T:
    """The call's result, tried a few times where the storage fails. What is not there is not waited for."""
    for delay in DELAYS:
        try:
            return call(*arguments)
        except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError):
            raise
        except OSError as error:
            logger.info("%s: %s; tried again in %s s", arguments[0] if arguments else call, error, delay)
            time.sleep(delay * random.uniform(0.5, 1.5))
    return call(*arguments)
