"""The one place where fsspec is asked: for a file system, and for what its libraries' errors mean."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from lvae.manifests.errors import LvaeError

REFUSALS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "RefreshError")
OUR_FAULTS = (TypeError, AttributeError, NameError, AssertionError)


def open_filesystem(url: str, **settings: Any) -> tuple[Any, str]:
    """fsspec's object for a URL, and what the URL is called there. LvaeError where no storage is known by it."""
    try:
        files, path = fsspec.core.url_to_fs(url, use_listings_cache=False, **settings)
    except ImportError as error:
        raise LvaeError(url, f"needs a package that is not installed ({first_line(error)})") from error
    except (ValueError, OSError) as error:
        raise LvaeError(url, f"cannot be opened ({first_line(error)})", "Name a path or a URL.") from error
    return files, str(path)


@contextmanager
def storage_errors(place: str) -> Iterator[None]:
    """Let every failure of a storage come out as an OSError with a reason, whatever its library calls it.

    What the storage answers (nothing there, there already) stays as it is, as do our own faults. LvaeError is raised
    where nobody may ask, or not in this way.
    """
    try:
        yield
    except (LvaeError, *OUR_FAULTS):
        raise
    except OSError as error:
        if error.strerror is None:  # made of a text alone
            gone = isinstance(error, FileNotFoundError)
            error.errno, error.strerror, error.filename = (
                errno.ENOENT if gone else errno.EIO,
                "no such file" if gone else first_line(error),
                place,
            )
        raise
    except Exception as error:  # every store's library has classes of its own
        if type(error).__name__ in REFUSALS:
            raise refusal(place, error) from error
        if type(error).__name__.startswith("InvalidU"):  # aiohttp's InvalidURL and its kind
            raise LvaeError(place, f"is no URL that can be asked for ({first_line(error)})") from error
        raise OSError(errno.EIO, first_line(error), place) from error


def refusal(place: str, error: BaseException) -> LvaeError:
    return LvaeError(
        place,
        f"the store refuses ({first_line(error)})",
        "Check the credentials in the environment, and what they permit.",
    )


def first_line(error: BaseException) -> str:
    """An error in a few words."""
    told = (error.strerror or (os.strerror(error.errno) if error.errno else "")) if isinstance(error, OSError) else ""
    text = told or str(error)
    return (" ".join(text.splitlines()[:1]) or type(error).__name__)[:200]
