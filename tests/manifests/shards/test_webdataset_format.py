import io
import json
import subprocess
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvae.manifests.errors import LvaeError
from lvae.manifests.shards.formats import codec
from lvae.manifests.shards.layout import ShardContent, SplitLayout
from lvae.manifests.shards.tar_template import file_bytes, frame_of, json_text, label_text, parse_labels
from lvae.manifests.storage.folder import Folder
from tests.manifests.shard_examples import (
    KEYS,
    assert_reads,
    content_of,
    faults,
    layout_of,
    open_split,
    part_of,
    write_split,
)

FIRST = "shards/v/train-000000.tar"
webdataset_leaves_files_open = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture
def example(tmp_path: Path) -> tuple[Path, SplitLayout, ShardContent]:
    layout = layout_of("webdataset", 150, log_variances=True)
    content = content_of(layout)
    write_split("webdataset", tmp_path, layout, content)
    return tmp_path, layout, content


def tars(root: Path) -> list[Path]:
    return sorted((root / "shards/v").glob("train-*.tar"))


def tar_by_hand(layout: SplitLayout, content: ShardContent) -> bytes:
    """The only shard of a split, as the standard library writes it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for index in range(layout.count):
            latent, cls = io.BytesIO(), f"{content.labels[index]:0{layout.label_width}d}".encode()
            np.save(latent, content.latents[index])
            fact = {"row": int(content.rows[index]), "key": content.keys[index]}
            text = json.dumps(fact | {"mirrored": bool(content.mirrored[index])}).encode().ljust(layout.json_width)
            for suffix, data in (("latent.npy", latent.getvalue()), ("cls", cls), ("json", text)):
                info = tarfile.TarInfo(f"{index:012d}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
@pytest.mark.parametrize("count", [1, 300])
def test_a_tar_has_the_bytes_that_the_standard_library_writes(tmp_path: Path, dtype: str, count: int) -> None:
    layout = layout_of("webdataset", count, dtype=dtype, shard_size=8192)
    content = content_of(layout)
    write_split("webdataset", tmp_path, layout, content)
    assert (tmp_path / FIRST).read_bytes() == tar_by_hand(layout, content)


def test_headers_of_far_samples_are_those_of_the_standard_library() -> None:
    frame = frame_of(layout_of("webdataset", 1))
    for position in (0, 7, 8, 99, 12345, 987654321098, 999999999999):
        sample = bytes(frame.fill(position, 1)[0])
        for member in frame.members:
            info = tarfile.TarInfo.frombuf(sample[member.header : member.header + 512], "ascii", "strict")
            assert info.name == f"{position:012d}{member.suffix}"  # frombuf checks the checksum
            assert (info.mode, info.uid, info.gid, info.mtime, info.uname) == (0o644, 0, 0, 0, "")
            assert info.tobuf(tarfile.USTAR_FORMAT) == sample[member.header : member.header + 512]


def test_the_systems_tar_lists_every_member(example: tuple[Path, SplitLayout, ShardContent]) -> None:
    root, layout, _ = example
    names = []
    for path in tars(root):
        done = subprocess.run(["tar", "tvf", path], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        names += [line.split()[-1] for line in done.stdout.splitlines()]
    suffixes = ("latent.npy", "logvar.npy", "cls", "json")
    assert names == [f"{position:012d}.{suffix}" for position in range(layout.count) for suffix in suffixes]


@webdataset_leaves_files_open
def test_webdataset_reads_every_sample(example: tuple[Path, SplitLayout, ShardContent]) -> None:
    import webdataset

    root, layout, content = example
    urls = [str(path) for path in tars(root)]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert content.log_variances is not None and len(samples) == layout.count
    for position, sample in enumerate(samples):
        assert sample["__key__"] == f"{position:012d}"
        assert sample["latent.npy"].dtype == np.float16
        np.testing.assert_array_equal(sample["latent.npy"], content.latents[position])
        np.testing.assert_array_equal(sample["logvar.npy"], content.log_variances[position])
        assert sample["cls"] == content.labels[position]
        facts = {"row": content.rows[position], "key": content.keys[position], "mirrored": content.mirrored[position]}
        assert sample["json"] == facts


def test_unlabelled_splits_have_no_cls_members(tmp_path: Path) -> None:
    layout = layout_of("webdataset", 5, labelled=False)
    write_split("webdataset", tmp_path, layout, content_of(layout))
    with tarfile.open(tmp_path / FIRST) as tar:
        assert {name.partition(".")[2] for name in tar.getnames()} == {"latent.npy", "json"}
    assert open_split("webdataset", tmp_path, layout).labels.tolist() == [-1] * 5


@settings(deadline=None)
@given(st.lists(st.text(max_size=30) | st.sampled_from(KEYS), min_size=1), st.integers(1, 10**12))
def test_the_json_width_is_that_of_the_longest(keys: list[str], rows: int) -> None:
    width = codec("webdataset").json_width(rows, keys)
    assert width == max(len(json_text(rows - 1, key, False)) for key in keys)
    assert codec("zarr").json_width(rows, keys) == 0


def test_a_label_or_key_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    layout = layout_of("webdataset", 3)
    content = content_of(layout)
    for wrong in ({"labels": np.array([0, 10000, 1], np.int32)}, {"keys": ["x" * 2000] * 3}):
        fields = {name: getattr(content, name) for name in ShardContent.__dataclass_fields__} | wrong
        with pytest.raises(ValueError, match="members have"):
            codec("webdataset").write_shard(Folder(tmp_path), "v", layout, 0, ShardContent(**fields))
    assert tars(tmp_path) == []


@settings(deadline=None)
@given(st.lists(st.integers(-999, 9999)))
def test_labels_are_parsed_as_they_are_written(labels: list[int]) -> None:
    texts = np.frombuffer(b"".join(label_text(label, 4) for label in labels), np.uint8).reshape(-1, 4)
    assert parse_labels(texts).tolist() == labels


def rewrite(path: Path) -> None:
    """The same shard as WebDataset's own writer makes it."""
    import webdataset

    samples = list(webdataset.WebDataset(str(path), shardshuffle=False).decode())
    with webdataset.TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write({name: value for name, value in sample.items() if name not in ("__url__", "__local_path__")})


@webdataset_leaves_files_open
def test_tars_written_by_webdataset_are_read(example: tuple[Path, SplitLayout, ShardContent]) -> None:
    root, layout, content = example
    for path in tars(root)[:2]:
        rewrite(path)
    assert_reads(open_split("webdataset", root, layout), layout, content)
    assert len(faults("webdataset", root, layout)) == 2  # verify says so


def test_tars_with_further_members_are_read(example: tuple[Path, SplitLayout, ShardContent]) -> None:
    root, layout, content = example
    with tarfile.open(tars(root)[0]) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    with tarfile.open(tars(root)[0], "w", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo("latents")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in members:
            info = tarfile.TarInfo(f"latents/{name}")
            info.size, info.pax_headers = len(data), {"comment": "ü"}
            tar.addfile(info, io.BytesIO(data))
    assert_reads(open_split("webdataset", root, layout), layout, content)


@webdataset_leaves_files_open
def test_a_tar_of_others_that_is_cut_short_is_named(example: tuple[Path, SplitLayout, ShardContent]) -> None:
    root, layout, _ = example
    rewrite(tars(root)[0])
    data = tars(root)[0].read_bytes()
    for left in (0, 100, 600, 5000, len(data) // 2, len(data) - 12000):
        tars(root)[0].write_bytes(data[:left])
        with pytest.raises(LvaeError, match="train-000000"):
            open_split("webdataset", root, layout)


@pytest.mark.parametrize(
    ("suffix", "data", "message"),
    [
        ("json", b"{", "does not hold its 64 samples"),
        ("json", b'{"key": "a"}', "'row'"),
        ("json", b"[]", "does not hold"),
        ("json", b"[" * 100_000, "does not hold"),
        ("json", b'{"row": Infinity, "key": "a", "mirrored": true}', "does not hold"),
        ("cls", b"cat", "invalid literal"),
        ("cls", b"123456", "does not fit"),
        ("latent.npy", b"\x80\x04pickle", "does not hold"),
        ("latent.npy", "float32", "there is float32"),
        ("latent.npy", "object", "there is object"),
        ("latent.npy", "cut", "cut short"),
        ("txt", b"", "does not hold its 64 samples .'.json'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_strange_member_is_refused(
    example: tuple[Path, SplitLayout, ShardContent], suffix: str, data: bytes | str, message: str
) -> None:
    root, layout, content = example
    if isinstance(data, str):
        file = io.BytesIO()
        np.save(file, content.latents[0].astype("float16" if data == "cut" else data))
        data = file.getvalue()[:-5] if data == "cut" else file.getvalue()
    with tarfile.open(tars(root)[0]) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    with tarfile.open(tars(root)[0], "w") as tar:
        for name, found in members:
            if suffix == "txt" and name == "000000000000.json":
                name = "000000000000.txt"
            info = tarfile.TarInfo(name)
            written = data if name == f"000000000000.{suffix}" else found
            info.size = len(written)
            tar.addfile(info, io.BytesIO(written))
    with pytest.raises(LvaeError, match=message):
        open_split("webdataset", root, layout).read([0])


def damage(path: Path, position: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(data)


def test_any_damaged_header_is_found_by_checking(example: tuple[Path, SplitLayout, ShardContent]) -> None:
    root, layout, _ = example
    frame = frame_of(layout)
    for sample, member in ((0, 0), (31, 1), (63, 3)):
        path = tars(root)[0]
        before = path.read_bytes()
        damage(path, sample * frame.stride + frame.members[member].header + 130, b"\x01")
        found = faults("webdataset", root, layout)
        assert len(found) == 1 and "train-000000.tar" in found[0]
        path.write_bytes(before)


def test_data_behind_the_last_sample_is_found_by_checking(example: tuple[Path, SplitLayout, ShardContent]) -> None:
    root, layout, _ = example
    damage(tars(root)[0], file_bytes(layout, 64) - 1, b"\x01")
    assert len(faults("webdataset", root, layout)) == 1


@pytest.mark.parametrize(("suffix", "data"), [(".cls", b"000x"), (".json", b"[")])
def test_damaged_texts_are_named(example: tuple[Path, SplitLayout, ShardContent], suffix: str, data: bytes) -> None:
    root, layout, _ = example
    frame = frame_of(layout)
    member: Any = frame.member(suffix)
    damage(tars(root)[0], 10 * frame.stride + member.start, data)
    reader = open_split("webdataset", root, layout)
    with pytest.raises(LvaeError, match=f"{suffix} .*damaged"):
        _ = (reader.labels, reader.rows)


def test_writing_holds_less_than_the_shard_in_memory(tmp_path: Path) -> None:
    layout = layout_of("webdataset", 4096, shape=(4, 32, 32), shard_size=4096)
    content = content_of(layout)
    part = part_of(content, layout, 0)
    tracemalloc.start()
    codec("webdataset").write_shard(Folder(tmp_path), "v", layout, 0, part)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < content.latents.nbytes
