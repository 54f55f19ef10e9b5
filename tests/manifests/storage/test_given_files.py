"""Text files that a user names: an endless one takes neither time nor memory, whatever names it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lvae.encode.sources.labels import read_labels
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.given_files import LARGEST_BYTES, read_given_file
from lvae.manifests.views.named_keys import read_key_lines
from lvae.pipeline.planning.view import ViewOptions, named_selection, read_normalization
from tests.manifests.dataset_examples import encode

READERS = (read_given_file, read_labels, read_key_lines, lambda path: read_normalization(str(path), 4))
NAMES = ("file", "labels", "keys", "normalization")


@pytest.mark.parametrize("read", READERS, ids=NAMES)
def test_devices_pipes_folders_and_endless_files_are_refused_in_one_line(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)
    for path in (Path("/dev/zero"), tmp_path / "pipe", tmp_path):
        with pytest.raises(LvaeError, match="is not a regular file"):
            read(path)
    with pytest.raises(LvaeError, match="has more than"):
        read(tmp_path / "large")


def test_an_empty_list_of_keys_is_an_error_unless_keys_may_be_missing(tmp_path: Path) -> None:
    example = encode(tmp_path / "dataset")
    (tmp_path / "keys").write_text("\n\r\n")
    options = ViewOptions(without_keys=tmp_path / "keys")
    with pytest.raises(LvaeError, match="names no key"):
        named_selection(example.folder, example.plan, options)
    said = list[str]()
    options = ViewOptions(without_keys=tmp_path / "keys", missing_ok=True)
    assert not named_selection(example.folder, example.plan, options, said.append).without_keys
    assert said == ["warning: --without-keys: the file names no key"]
