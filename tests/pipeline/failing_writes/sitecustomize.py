"""Loaded by every Python that finds this folder on its path: while a switch is there, one write of a few fails.

LVAE_FAILING_WRITES: a folder, and the path of the switch, with a `:` between them. What fails is opening a file of the
folder for writing, and renaming one; full disks cut writes in their middle.
"""

import errno
import os
import random
import sys
from pathlib import Path
from typing import Any

SHARE = 0.1
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

_folder, _, _switch = os.environ.get("LVAE_FAILING_WRITES", "").partition(":")
_draw = random.Random(os.getpid())


def _fail_now_and_then(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        if not flags & WRITING:
            return
    elif event == "os.rename":
        path = arguments[1]
    else:
        return
    if isinstance(path, int) or not os.fsdecode(path).startswith(_folder) or not Path(_switch).exists():
        return
    if _draw.random() < SHARE:
        raise OSError(errno.EIO, os.strerror(errno.EIO), os.fsdecode(path))


if _switch:
    sys.addaudithook(_fail_now_and_then)
