"""Names that become paths: their forms in records, and the refusal of what leads out of a folder.

What a dataset says is not believed before it is checked. A record with a name of another form is refused when it is
read, and a folder refuses the rest: absolute names, "..", and links to elsewhere.
"""

import os
import stat
from pathlib import Path
from typing import Annotated

from lvae.manifests.errors import LvaeError
from lvae.manifests.records import Form

Sha256 = Annotated[str, Form(r"[0-9a-f]{64}", "64 hexadecimal digits")]
_PART, _LETTER = r"(?!\.\.?(/|\Z))", r"[^/\\\x00-\x1f\x7f]"
FileName = Annotated[str, Form(rf"{_PART}{_LETTER}+(/{_PART}{_LETTER}+)*", "the name of a file in this folder")]
FlatName = Annotated[str, Form(r"[\w-]+(\.[\w-]+)*", "the name of a file without folders")]
WeightsHash = Annotated[str, Form(r"[0-9a-f]{64}|unknown", "64 hexadecimal digits")]
ViewName = Annotated[str, Form(r"[a-z0-9][a-z0-9-]{0,99}", "small letters, digits and hyphens")]
_SPLIT = Form(r"(?!\d)\w{1,64}", "at most 64 letters, digits and underscores")
SplitName = Annotated[str, _SPLIT]


def is_split_name(name: str) -> bool:
    return _SPLIT.fits(name)


def check_name(folder: object, name: str) -> str:
    """The name, if it stays in its folder; "" is the folder itself."""
    if name and ("\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/"))):
        raise LvaeError(folder, f"{name!r:.200} is no name of a file in this folder", "Do not use these files.")
    return name


def check_links(root: Path, name: str) -> None:
    """LvaeError where a link on the way to a file leads out of the folder, or something else than a file lies there."""
    path = str(root)
    for component in name.split("/") if name else ():
        path = f"{path}/{component}"
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            return  # what is not there leads nowhere
        if stat.S_ISLNK(mode):
            real = os.path.realpath(root)
            if not os.path.realpath(path).startswith(f"{real.rstrip('/')}/"):
                raise LvaeError(path, f"is a link to a place outside of {root}", "Put the file itself there.")
        elif not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise LvaeError(path, "is neither a file nor a folder", "Remove it.")
