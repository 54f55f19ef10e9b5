"""What describes a dataset is written in memory for a piece of it."""

import tracemalloc
from pathlib import Path

from lvae.manifests.parts.receipts import REJECTED
from lvae.manifests.publishing.publish import write_rejected
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.object_store import RemoteFolder
from lvae.manifests.views.order_files import rejected_file


def test_rejections_pass_through_a_piece_at_a_time(tmp_path: Path) -> None:
    """A group may hold millions of them."""
    folder, groups = Folder(tmp_path), 3
    for group in range(groups):
        folder.write(rejected_file(group), (bytes([97 + group]) * (1 << 20) for _ in range(12)))
    tracemalloc.start()
    write_rejected(folder, folder, groups)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    assert folder.size(REJECTED) == groups * 12 << 20


def test_rejections_of_a_store_are_in_group_order() -> None:
    folder = RemoteFolder("memory://rejections/dataset")
    for group in range(3):
        folder.write(rejected_file(group), f"{group}\n".encode())
    write_rejected(folder, folder, 3)
    assert folder.read(REJECTED) == b"0\n1\n2\n"
    folder._files.rm("/rejections", recursive=True)
