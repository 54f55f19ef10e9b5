"""What lies at a path is told without following a link that a stranger put there."""

import os
from pathlib import Path

import pytest

from lvae.manifests.storage.places.guard import RUN, guard_output
from lvae.manifests.storage.places.kinds import MARKERS, Kind, kind_of
from tests.manifests.storage.test_hostile_files import watch


@pytest.mark.parametrize("target", ["victim", "victim/kept.json", "victim/nothing"])
@pytest.mark.parametrize("marker", MARKERS, ids=lambda marker: str(marker.name))
def test_a_marker_that_is_a_link_counts_and_is_not_followed(
    tmp_path: Path, marker: tuple[Kind, str], target: str
) -> None:
    folder = tmp_path / "folder"
    for path in (tmp_path / "victim/photos", folder / "checkpoints"):
        path.mkdir(parents=True)
    for path in (tmp_path / "victim/kept.json", folder / "model.safetensors"):
        path.write_bytes(b"{}")
    (folder / marker[1]).symlink_to(tmp_path / target)
    watch.seen, watch.root = [], str(tmp_path / "victim")
    try:
        found = kind_of(folder)
    finally:
        watch.root = ""
    assert (found, watch.seen) == (marker[0], [])


def test_links_to_folders_are_not_looked_into(tmp_path: Path) -> None:
    """As `lvae export RUN OUT` did where RUN/config.json was a link to a folder elsewhere."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/0.png").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for name in ("config.json", "more"):
        (tmp_path / "folder" / name).symlink_to(tmp_path / "victim")
    watch.seen, watch.root = [], str(tmp_path / "victim")
    try:
        assert kind_of(tmp_path / "folder") == Kind.FOLDER
        assert kind_of(tmp_path / "folder/more") == Kind.IMAGES  # named by the user
    finally:
        watch.root = ""
    assert watch.seen == [f"os.scandir {os.path.realpath(tmp_path / 'victim')}"]


def test_a_model_in_the_hubs_cache_is_no_run(tmp_path: Path) -> None:
    """Its files are links into blobs/."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/1").write_text("{}")
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots/config.json").symlink_to("../blobs/1")
    assert kind_of(tmp_path / "snapshots") == Kind.FOLDER
    guard_output(tmp_path / "run", RUN, [tmp_path / "snapshots"])
