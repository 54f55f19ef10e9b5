"""Repeating a call while the storage or the network fails."""

import errno
import logging
import random
import socket
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
logger = logging.getLogger(__name__)

DELAYS = (0.25, 1.0, 4.0)  # seconds before each further try, give or take a half
ANSWERS = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
ANSWERING = (  # numbers of errors without a class of their own
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP),
    *(errno.EMFILE, errno.ENFILE, errno.EXDEV, errno.ENOTEMPTY, errno.ENOTSUP, errno.EBADF),
)
UNKNOWN_HOST = (socket.EAI_NONAME, socket.EAI_NODATA)


def is_outage(error: Exception) -> bool:
    """Whether the storage failed. A file that is not there, or a disk that is full, is an answer and no failure."""
    return isinstance(error, OSError) and not isinstance(error, ANSWERS) and error.errno not in ANSWERING


def raise_outage(error: Exception) -> None:
    """Raise an error again where the storage failed, so that whoever is patient waits for it.

    OSErrors without a number are libraries' own: they call a damaged file so. A host that nobody knows is misspelt.
    """
    if isinstance(error, OSError) and error.errno not in (None, 0, *UNKNOWN_HOST) and is_outage(error):
        raise error


def retry(
    call: Callable[[], T],
    delays: Sequence[float] | None = None,
    may_help: Callable[[Exception], bool] = is_outage,
    where: object = "",
) -> T:
    """Return the call's result. Where it raises what trying again may help, wait and call again, once for each delay.

    The last error, and every other one, is raised as it came.
    """
    for delay in DELAYS if delays is None else delays:
        try:
            return call()
        except Exception as error:
            if not may_help(error):
                raise
            logger.info("%s: %s; trying again in about %s s", where, error, delay)
        time.sleep(delay * random.uniform(0.5, 1.5))
    return call()
