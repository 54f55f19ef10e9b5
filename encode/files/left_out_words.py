"""What was found beside images, in a sentence: 1 hidden file, 2 hidden files."""

from collections.abc import Mapping

from lvae.encode.files import naming
from lvae.manifests.errors import LvaeError

ONE = {
    naming.HIDDEN: "hidden file",
    naming.NOT_IMAGES: "not an image",
    naming.LOOPS: "symbolic link that leads round in a circle",
    naming.BROKEN_LINKS: "broken symbolic link",
    naming.LINKS: "link inside an archive that leads nowhere",
    naming.SPECIAL: "neither file nor folder",
    naming.NOT_READ: "archive or table not read",
    naming.PICTURES_NOT_READ: "picture of a format that is not read",
    naming.NOT_UTF8: "name that is not UTF-8",
    naming.LINKED_FOLDERS: "linked folder not looked into",
    naming.BESIDE: "image beside what is read",
    naming.LABELS_NOT_USED: "file that may hold labels",
}


def describe_counts(counts: Mapping[str, int]) -> list[str]:
    return [f"{number} {ONE.get(what, what) if number == 1 else what}" for what, number in counts.items() if number]


def no_images(source: str, counts: dict[str, int], hint: str = "") -> LvaeError:
    """What to say of a source in which nothing is an image."""
    found = ", ".join(describe_counts(counts))
    return LvaeError(source, f"no images found ({found or 'it is empty'}).{hint and ' ' + hint}")
