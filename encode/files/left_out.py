"""What was found beside images: counted, and told in a sentence: 1 hidden file, 2 hidden files."""

import posixpath
import re
from collections import Counter
from collections.abc import Mapping

from lvae.encode.files import naming
from lvae.encode.files.naming import (
    HIDDEN,
    LABELS_NOT_USED,
    LOST,
    NAMED,
    NOT_IMAGES,
    NOT_READ,
    Labelled,
    is_image_name,
    readable,
    what_is_left_out,
)
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted

BESIDE_IMAGES = frozenset({".txt", ".json", ".xml", ".yaml", ".yml"})  # what labels of single images may lie in
ABOUT = re.compile(r"(?i)read.?me|licen[cs]e|copying|notice|change|requirements|citation|author|config|setting|url")
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
    return [count_left_out(number, what) for what, number in counts.items() if number]


def count_left_out(number: int, what: str) -> str:
    return f"{number} {ONE.get(what, what) if number == 1 else what}"


def no_images(source: str, counts: dict[str, int], hint: str = "") -> LvaeError:
    """What to say of a source in which nothing is an image."""
    found = ", ".join(describe_counts(counts))
    return LvaeError(source, f"no images found ({found or 'it is empty'}).{hint and ' ' + hint}")


class LeftOut:
    """Counts what is no image, and keeps an example of what a person may have wanted to be read."""

    def __init__(self, counts: dict[str, int]):
        self._counts = counts
        self._endings: dict[str, Counter[str]] = {}
        self._examples: dict[str, str] = {}
        self._outside, self._outside_example = 0, ""  # images whose names hold ..
        self._beside: dict[str, tuple[int, str]] = {}  # ending: how many files that may belong to one image, an example

    def add(self, name: str, known: str | None = None) -> None:
        """A file that is no image; `known`: under what it is counted, where its name does not say."""
        what = known or what_is_left_out(name)
        self._counts[what] = self._counts.get(what, 0) + 1
        if what == HIDDEN and ".." in name.split("/") and is_image_name(name) is True:
            self._outside += 1
            self._outside_example = self._outside_example or name
        if what == NOT_IMAGES and (ending := ending_of(name)) in BESIDE_IMAGES and not ABOUT.search(name):
            count, example = self._beside.get(ending, (0, name))
            self._beside[ending] = count + 1, example
        if what in NAMED or (what in LOST and is_image_name(name) is True):
            self._examples.setdefault(what, name)
            if len(endings := self._endings.setdefault(what, Counter())) < 100:
                endings[ending_of(name)] += 1

    def warn(self, source: Labelled, files_beside: bool = False) -> None:
        """Once all rows are through. files_beside: whether a file beside each image goes unread here."""
        if self._outside:
            images, example = counted(self._outside, "image"), readable(self._outside_example)
            source.warn("left out", f"{images} whose names lead out of the archive: left out, {example} for one")
        for what, example in sorted(self._examples.items()):
            if what != LABELS_NOT_USED:
                endings = ", ".join(f"{number} {ending}" for ending, number in self._endings[what].most_common(5))
                text = f"{count_left_out(self._counts[what], what)}: left out ({endings}), {readable(example)} for one"
                source.warn("left out", text)
        count = self._counts.get(LABELS_NOT_USED, 0)
        if count and len(source.classes or ()) < 2:
            files, example = counted(count, "file"), readable(self._examples[LABELS_NOT_USED])
            given = "no image has a label" if not source.classes else "there is one class"
            text = f"{given}, and {files} may hold labels, {example} for one. Say --labels FILE to use one"
            source.warn("labels not used", text)
        elif files_beside and not source.classes:
            self._warn_of_files_beside(source)

    def _warn_of_files_beside(self, source: Labelled) -> None:
        """A .txt or .json an image is how several tools keep labels and captions."""
        ending, (count, example) = max(self._beside.items(), key=lambda item: item[1][0], default=("", (0, "")))
        if count > 1:
            files = f"{count} {ending} files lie beside the images, {readable(example)} for one"
            advice = "Labels in them are not read: write them into one table for --labels FILE"
            source.warn("labels not used", f"no image has a label, and {files}. {advice}")

    @property
    def hint(self) -> str:
        """For an error: what is there that a person may have meant."""
        example = self._examples.get(NOT_READ)
        return f"{readable(example)} may hold some: give it as SOURCE, or a pattern of such." if example else ""


def ending_of(name: str) -> str:
    """The ending of a file's name, both of them for .tar.gz."""
    base, last = posixpath.splitext(posixpath.basename(name).lower())
    before = posixpath.splitext(base)[1]
    return f".tar{last}" if before == ".tar" else last or "without an ending"
