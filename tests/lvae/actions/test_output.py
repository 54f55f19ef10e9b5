"""What a person is told in numbers."""

from pathlib import Path

from lvae.actions.output import summary
from lvae.manifests.publishing.cleaning import Cleaned
from tests.manifests.dataset_examples import CLASSES, Contents, build


def test_one_is_singular_and_several_are_plural(tmp_path: Path) -> None:
    alone = Contents(images=1, part_size=1, rejected=frozenset(), mirrored=False)
    one = build(tmp_path / "one", alone).manifest
    said = summary("flower", one)
    assert said.startswith("flower: 1 latent of 4x2x2 from 1 image; 0 images rejected\n")
    assert "in 1 zarr shard of float16" in said
    several = summary("flowers", build(tmp_path / "several", shard_size=64).manifest)
    assert several.startswith("flowers: 144 latents of 4x2x2 from 95 images and their mirrors; 23 images rejected\n")
    assert "in 3 zarr shards of float16" in several
    chosen = summary("few", build(tmp_path / "few", only_classes=CLASSES[:1]).manifest)
    assert chosen.startswith("few: 40 of 144 latents of 4x2x2") and "float16; the raw parts hold the rest\n" in chosen
    assert "hold the rest" not in several
    assert Cleaned("d", ["a"], 0).sentence(dry_run=False) == "d: 1 file, 0.0 MiB removed"
