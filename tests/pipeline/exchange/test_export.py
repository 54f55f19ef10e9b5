"""`lvae latents export`: what is written is what their loaders ask for, and comes back bit for bit."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.publishing.publish import drop_raw
from lvae.pipeline.exchange.caches.open import open_cache
from lvae.pipeline.exchange.caches.record import RECORD, ROWS, ExportedCache
from lvae.pipeline.exchange.export import ExportOptions, Layout, export
from lvae.pipeline.exchange.export_rows import ExportRows
from lvae.pipeline.exchange.part import convert
from lvae.pipeline.exchange.settings import Conversion, ImportOptions, with_record
from tests.conftest import lvae
from tests.manifests.dataset_examples import Contents, Example, build

LABELLED = {"classes": ("a", "b", "c"), "rejected": frozenset({3, *range(40, 60)})}


def example(root: Path, **contents: object) -> Example:
    """A dataset without unlabelled rows."""
    return build(root, Contents(images=60, **LABELLED, **contents), only_classes=["a", "b", "c"])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Example]:
    """Without and with mirrors; only looked at."""
    root = tmp_path_factory.mktemp("datasets")
    return {mirrored: example(root / f"{mirrored}", mirrored=mirrored) for mirrored in (False, True)}


def write(made: Example, out: Path, layout: Layout, **options: object) -> list[str]:
    said: list[str] = []
    export(made.open(), out, ExportOptions(layout, **options), said.append, lambda _: None)  # type: ignore[arg-type]
    return said


def read(place: Path, scale: float = 1) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """What our own import makes of a cache: (n, orientations, C', h, w) and labels, in the order of export."""
    cache = open_cache(str(place))
    rows = list(cache.rows())
    if cache.layout == "dit":
        rows.sort(key=lambda row: int(row.container.removesuffix(".npy")))
    out = np.empty((len(rows), cache.orientations, *cache.shape), np.float32)
    assert cache.read(rows, out) == {}
    convert(out, cache.moments is not None, cache.moments == "deviation", Conversion(scale))
    return out, np.array([row.label for row in rows], np.int32)


def selected(made: Example) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The dataset's own raw latents and labels of its training split, an image with its mirror, by row."""
    dataset = made.open()
    both = np.concatenate(made.raw).reshape(-1, made.contents.orientations, *made.raw[0].shape[1:])
    numbers = {row: index for index, row in enumerate(dict.fromkeys(made.stored_rows))}
    labels = dict(zip(dataset.rows.tolist(), dataset.labels.tolist(), strict=True))
    rows = sorted(labels)
    return both[[numbers[row] for row in rows]], np.array([labels[row] for row in rows], np.int32)


@pytest.mark.parametrize("layout", ["edm2", "edm2.zip", "lightningdit", "dit", "npy", "safetensors"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_what_was_exported_comes_back_with_keys_labels_and_classes(tmp_path: Path, layout: str, mirrored: bool) -> None:
    made, out = example(tmp_path / "dataset", mirrored=mirrored), tmp_path / f"out-{layout}"
    kind: Layout = layout.removesuffix(".zip")  # type: ignore[assignment]
    write(made, out, kind, **({"scale": 1.0} if layout == "dit" else {}))
    found, labels = read(out)
    wanted, numbers = selected(made)
    cache = open_cache(str(out))
    keys = [row.key for row in sorted(cache.rows(), key=lambda row: (row.label, row.key))]
    dataset = made.open()
    named = {(int(label), key) for label, key in zip(dataset.labels[:], dataset.keys[:], strict=True)}
    if kind in ("edm2", "dit"):
        wanted, numbers = wanted.reshape(-1, 1, *wanted.shape[2:]), np.repeat(numbers, made.contents.orientations)
        named |= {(label, f"{key} (mirrored)") for label, key in named if mirrored}
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(labels, numbers)
    assert keys == [key for _, key in sorted(named)]
    assert cache.classes == ("a", "b", "c")


@pytest.mark.parametrize("layout", ["edm2", "lightningdit", "dit", "npy", "safetensors"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_others_read_the_same_latents_bit_for_bit(
    tmp_path: Path, datasets: dict[bool, Example], layout: Layout, mirrored: bool
) -> None:
    made, out, kind = datasets[mirrored], tmp_path / f"out-{layout}", layout
    write(made, out, kind, **({"scale": 1.0} if layout == "dit" else {}))
    (out / RECORD).unlink()
    found, labels = read(out)
    wanted, numbers = selected(made)
    if kind in ("edm2", "dit"):
        wanted, numbers = wanted.reshape(-1, 1, *wanted.shape[2:]), np.repeat(numbers, made.contents.orientations)
    elif kind == "lightningdit" and not mirrored:
        wanted = np.repeat(wanted, 2, 1)
    np.testing.assert_array_equal(found[:, :, : wanted.shape[2]], wanted)
    np.testing.assert_array_equal(labels, numbers)


@pytest.mark.parametrize(("layout", "moments"), [("npy", True), ("edm2", True), ("lightningdit", False)])
def test_kept_posteriors(tmp_path: Path, layout: Layout, moments: bool) -> None:
    made = example(tmp_path / "dataset", store="moments")
    write(made, tmp_path / "out", layout)
    found, _ = read(tmp_path / "out")
    wanted = selected(made)[0]
    if layout == "edm2":
        wanted = wanted.reshape(-1, 1, *wanted.shape[2:])
    np.testing.assert_array_equal(found[:, :, :4], wanted[:, :, :4])
    if moments:  # a deviation in float32 has fewer values than its log-variance
        np.testing.assert_allclose(found[:, :, 4:], wanted[:, :, 4:], atol=0 if layout == "npy" else 1e-6)


def test_statistics_stand_where_lightningdit_looks_for_them(tmp_path: Path) -> None:
    made = example(tmp_path / "dataset")
    write(made, tmp_path / "out", "lightningdit", scale=0.5)
    found = torch.load(tmp_path / "out" / "latents_stats.pt", weights_only=True)
    wanted = selected(made)[0].astype(np.float64) * 0.5
    assert found["mean"].shape == found["std"].shape == (1, 4, 1, 1)
    np.testing.assert_allclose(found["mean"].flatten(), wanted.mean((0, 1, 3, 4)), rtol=1e-6)
    np.testing.assert_allclose(found["std"].flatten(), wanted.std((0, 1, 3, 4)), rtol=1e-6)
    (name,) = (tmp_path / "out").glob("*.safetensors")
    with safe_open(name, framework="numpy") as file:
        assert sorted(file.keys()) == ["labels", "latents", "latents_flip"]
        np.testing.assert_array_equal(file.get_tensor("latents"), selected(made)[0][:, 0] * np.float32(0.5))


def test_without_raw_parts_the_shards_are_denormalized(tmp_path: Path) -> None:
    made = example(tmp_path / "dataset", store="moments")
    drop_raw(made.folder)
    said = write(made, tmp_path / "out", "npy")
    assert any("raw parts are not there" in line for line in said)
    found, wanted = read(tmp_path / "out")[0], selected(made)[0]
    scale = np.array(made.manifest.normalization.scale)[:, None, None]
    assert (np.abs(found[:, :, :4] - wanted[:, :, :4]) / scale).max() < 4e-3
    assert np.abs(found[:, :, 4:] - wanted[:, :, 4:]).max() < 2e-2


def test_an_export_is_imported_without_another_word(tmp_path: Path) -> None:
    """Unlabelled rows are unlabelled again, though LightningDiT's files call them class 0; the scale is taken out."""
    made, out, back = build(tmp_path / "a", Contents(images=30, classes=None)), tmp_path / "out", tmp_path / "back"
    write(made, out, "lightningdit", scale=0.5)
    record = json.loads((out / RECORD).read_text())
    (out / RECORD).write_text(json.dumps(record | {"architecture": {}}))  # of the example's no network can be built
    done = lvae("latents", "import", out, back, "--workers", "1")
    assert "keys, labels and settings are those of export.json" in done.stderr
    before, after = made.open(), Dataset.open(back)
    assert sorted(after.keys[:]) == sorted(before.keys[:])
    assert set(after.labels[:].tolist()) == {-1}
    np.testing.assert_allclose(after.statistics.mean, before.statistics.mean, rtol=1e-12)
    a, b = before.manifest, after.manifest
    assert (a.image.mirrored, a.image.input_range, a.autoencoder.downsampling_factor) == (
        b.image.mirrored, b.image.input_range, b.autoencoder.downsampling_factor,
    )  # fmt: skip
    assert "there is nothing to do" in lvae("latents", "import", out, back, "--workers", "1").stderr
    factor = before.manifest.autoencoder.downsampling_factor
    for option, wrong, right in (("--scale", "1", "0.5"), ("--factor", factor + 1, factor)):
        line = lvae("latents", "import", out, tmp_path / "other", option, str(wrong), check=1).stderr
        assert line.startswith(f"lvae: {option} {wrong}") and f"says {right}. Leave it out" in line


@pytest.mark.slow
def test_a_dataset_comes_back_by_every_layout(tmp_path: Path, scenes: Path) -> None:
    """With its latents bit for bit, its keys, labels and classes, and the weights of its autoencoder."""
    lvae("encode", scenes, tmp_path / "data", "--size", "16", "--limit", "24", "--workers", "1")
    before = Dataset.open(tmp_path / "data")
    for layout in ("edm2", "edm2.zip", "lightningdit", "dit", "npy", "safetensors"):
        out, back = tmp_path / layout, tmp_path / f"{layout}-back"
        scale = ("--scale", "1") if layout == "dit" else ()
        lvae("latents", "export", tmp_path / "data", out, "--layout", layout.removesuffix(".zip"), *scale)
        lvae("latents", "import", out, back, "--workers", "1")
        after = Dataset.open(back)
        assert contents(after) == contents(before)
        assert after.classes == before.classes
        assert after.manifest.autoencoder == before.manifest.autoencoder
        assert after.manifest.image == before.manifest.image
        lvae("decode", back, tmp_path / f"{layout}.png", "--limit", "1")


def contents(dataset: Dataset) -> list[tuple[str, int, bytes]]:
    """Key, label and raw latents of every image."""
    blocks = ExportRows(dataset).blocks()
    return sorted(
        (key, int(label), latents.tobytes())
        for block in blocks
        for key, label, latents in zip(block.keys, block.labels, block.latents, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        (RECORD, lambda text: text.replace('"dit"', '"edm2"'), "describes edm2, and these files are dit"),
        (RECORD, lambda text: text.replace('"count": ', '"count": 1'), "speaks of"),
        (RECORD, lambda text: text.replace('"count"', '"number"'), "unknown field"),
        (RECORD, lambda text: text.replace('"orientations": 1', '"orientations": 2'), "mirrored latents"),
        (RECORD, lambda text: re.sub('"downsampling_factor": [0-9]+', '"downsampling_factor": 0', text), "its factor"),
        (RECORD, lambda text: text.replace('"holds": "mode"', '"holds": "all"'), "is none of"),
        (ROWS, lambda text: "\n".join(text.splitlines()[1:]) + "\n", "has label"),
        (ROWS, lambda text: text + '["another", 0]\n', "has not as many rows"),
        (ROWS, lambda text: text.replace("0]", "3]"), "out of range"),
        (ROWS, lambda text: text.replace('["', '["' + "x" * 70_000, 1), "a line of more than"),
        (ROWS, lambda text: text[:-1], "ends within a line"),
        (ROWS, lambda text: '["\\ud800", 0]\n' + text, "not valid JSON"),
        (ROWS, lambda text: "null\n" + text, "is not"),
    ],
)
def test_a_record_that_says_something_else_is_refused_in_one_line(
    tmp_path: Path, datasets: dict[bool, Example], name: str, change: Callable[[str], str], problem: str
) -> None:
    out = tmp_path / "out"
    write(datasets[False], out, "dit", scale=1.0)
    text = (out / name).read_text()
    assert change(text) != text
    (out / name).write_text(change(text))
    with pytest.raises(LvaeError, match=problem) as raised:
        list(open_cache(str(out)).rows())
    assert len(str(raised.value)) < 400


def test_an_option_that_a_record_says_too_is_no_contradiction(tmp_path: Path, datasets: dict[bool, Example]) -> None:
    write(datasets[False], tmp_path / "out", "npy")
    cache = open_cache(str(tmp_path / "out"))
    assert isinstance(cache, ExportedCache)
    factor, known = cache.record.downsampling_factor, {"kind": "kl", "latent_channels": 4}
    cache.record = replace(cache.record, architecture=known)
    assert with_record(ImportOptions(factor=factor), cache).factor is None
    with pytest.raises(LvaeError, match=f"--factor {factor + 1}: export.json of .* says {factor}"):
        with_record(ImportOptions(factor=factor + 1), cache)


def test_a_record_of_others_is_none(tmp_path: Path, datasets: dict[bool, Example]) -> None:
    out = tmp_path / "out"
    write(datasets[False], out, "npy")
    for text in ("{", "[]", '{"format": "theirs"}', '{"format": "latent-vae-exported-latents", "version": 1}'):
        (out / RECORD).write_text(text)
        assert next(iter(open_cache(str(out)).rows())).key == "latents.npy:0000000"


def test_splits_are_exported_by_themselves(tmp_path: Path) -> None:
    made = build(tmp_path / "dataset", Contents(images=60, **LABELLED), split={"val": "30%"})  # type: ignore[arg-type]
    counts = []
    for split in ("train", "val"):
        options = ExportOptions("npy", split)
        record = export(made.open(split), tmp_path / split, options, lambda _: None, lambda _: None)
        assert record is not None
        counts.append(record.count)
        assert len(read(tmp_path / split)[0]) == record.count
    assert sum(counts) == 60 - len(LABELLED["rejected"])


def test_the_same_export_again_does_nothing_and_another_is_refused(tmp_path: Path) -> None:
    made, out = example(tmp_path / "dataset"), tmp_path / "out"
    first = lvae("latents", "export", made.root, out, "--layout", "npy")
    assert "rows and their flips of the split train in the layout of npy, float32" in first.stdout
    before = (out / "latents.npy").stat().st_mtime_ns
    assert "nothing to do" in lvae("latents", "export", made.root, out, "--layout", "npy").stderr
    assert (out / "latents.npy").stat().st_mtime_ns == before
    lvae("latents", "export", made.root, out, "--layout", "npy", "--dtype", "float16", check=1)
    lvae("latents", "export", made.root, out, "--layout", "edm2", check=1)
    assert "0.18215" in lvae("latents", "export", made.root, tmp_path / "dit", "--layout", "dit", check=1).stderr


def test_a_layout_without_a_word_for_unlabelled_refuses_some(tmp_path: Path) -> None:
    made = build(tmp_path / "dataset", Contents(images=30))
    with pytest.raises(LvaeError, match="have no label"):
        write(made, tmp_path / "out", "lightningdit")
    none = build(tmp_path / "none", Contents(images=30, classes=None))
    assert "no latent has a label: all are written as class 0" in write(none, tmp_path / "out", "lightningdit")
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.slow
def test_a_model_of_others_learns_the_same_from_an_export(tmp_path: Path) -> None:
    """A hundred steps of a small DiT of diffusers, by LightningDiT's layout and by our own reader, loss by loss."""
    made = build(
        tmp_path / "dataset",
        Contents(images=60, mirrored=False, **LABELLED),  # type: ignore[arg-type]
        only_classes=["a", "b", "c"],
        normalization="none",
        dtype="float32",
    )
    write(made, tmp_path / "out", "lightningdit")
    (name,) = (tmp_path / "out").glob("*.safetensors")
    with safe_open(name, framework="pt") as file:
        theirs = file.get_tensor("latents"), file.get_tensor("labels")
    dataset = made.open()
    order = np.argsort(dataset.rows)
    latents, labels = dataset.read(order, np.float32)
    ours = torch.from_numpy(latents), torch.from_numpy(labels).long()
    assert losses(*ours) == losses(*theirs)


def losses(latents: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """Of a hundred steps that predict noise."""
    from diffusers import DiTTransformer2DModel

    torch.manual_seed(0)
    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, num_layers=2, norm_num_groups=2, sample_size=2,
        patch_size=1, num_embeds_ada_norm=3,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    found = []
    for step in range(100):
        chosen = torch.arange(8) * 3 + step
        x, y = latents[chosen % len(latents)], labels[chosen % len(labels)]
        noise, times = torch.randn_like(x), torch.rand(len(x))
        mixed = x + times[:, None, None, None] * (noise - x)
        out = model(mixed, timestep=(times * 1000).long(), class_labels=y).sample
        loss = ((out - noise) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert found[-1] < found[0]
    return found
