"""What fuzz.py damages: for every kind of file sound ones, what is done with a damaged one, and how its checksums are
made right again, so that damage also gets behind them."""

import io
import json
import pickle
import re
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from lvae.encode import crops, images
from lvae.encode.autoencoder import load, load_file
from lvae.encode.images import ImageRejected, open_image
from lvae.encode.networks.base import save_safetensors
from lvae.encode.sources import base
from lvae.encode.sources import npz as sources_npz
from lvae.encode.sources.base import read_bytes
from lvae.encode.sources.open import apply_labels, open_reader, open_source, read_labels
from lvae.encode.weights.names import to_diffusers

Run = Callable[[bytes], object]

torch.set_num_threads(1)
base.READ_DELAYS = ()  # type: ignore[assignment]  # nothing here gets better by waiting
for module in (images, crops, sources_npz):
    module.MAX_PIXELS = 1 << 22  # type: ignore[attr-defined]  # so that bounds on memory and time can be tight

SMALL = {"kind": "kl", "width": 2, "multipliers": [1, 2], "latent_channels": 1, "blocks": 1}
STATE = load(SMALL, "random:5").state_dict()
ROWS_READ = 40  # of a damaged source


@dataclass(frozen=True)
class Target:
    """seeds: sound files. runner: given an empty folder, what is done with a file's bytes. repair: checksums."""

    seeds: Callable[[], list[bytes]]
    runner: Callable[[Path], Run]
    repair: Callable[[bytes], bytes] = bytes


# --- pictures ------------------------------------------------------------------------------------------------------


def encoded(image: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def noise(side: int = 8, level: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(level).integers(0, 256, (side, side + 3, 3), np.uint8))


def png(level: int) -> bytes:
    return encoded(noise(4, level), "PNG")


def pictures() -> list[bytes]:
    rgb, exif = noise(24), Image.Exif()
    exif[0x0112] = 6
    grey16 = Image.fromarray(np.arange(24 * 24, dtype=np.uint16).reshape(24, 24) * 100)
    return [
        encoded(rgb, "JPEG", exif=exif),
        encoded(rgb, "JPEG", progressive=True, quality=30),
        encoded(rgb.convert("CMYK"), "JPEG"),
        encoded(rgb.convert("L"), "JPEG"),
        encoded(rgb, "PNG"),
        encoded(rgb.convert("P"), "PNG", transparency=3),
        encoded(grey16, "PNG"),
        encoded(rgb.convert("P"), "GIF", save_all=True, append_images=[noise(24, 1).convert("P")]),
        encoded(rgb, "BMP"),
        encoded(rgb.convert("1"), "BMP"),
        encoded(rgb, "WEBP", exif=exif),
        encoded(rgb.convert("RGBA"), "WEBP", lossless=True),
        encoded(rgb, "WEBP", save_all=True, append_images=[noise(24, 1)]),
        *(encoded(rgb, "TIFF", compression=name) for name in (None, "tiff_lzw", "tiff_adobe_deflate", "jpeg")),
        encoded(Image.fromarray(np.linspace(0, 1, 576, dtype=np.float32).reshape(24, 24)), "TIFF"),
        encoded(grey16, "TIFF"),
        encoded(rgb, "PPM"),
        encoded(rgb.convert("1"), "PPM"),
        encoded(rgb, "AVIF"),
    ]


def open_and_crop(_: Path) -> Run:
    def run(data: bytes) -> None:
        for kind in ("adm", "center"):
            crops.crop(open_image(data), 16, kind)

    return run


def with_chunk_sums(data: bytes) -> bytes:
    """A PNG whose chunks have right checksums."""
    if not data.startswith(b"\x89PNG"):
        return data
    found, at = bytearray(data), 8
    while at + 12 <= len(found):
        (length,) = struct.unpack_from(">I", found, at)
        if at + 12 + length > len(found):
            break
        found[at + 8 + length : at + 12 + length] = zlib.crc32(found[at + 4 : at + 8 + length]).to_bytes(4, "big")
        at += 12 + length
    return bytes(found)


# --- sources -------------------------------------------------------------------------------------------------------


def pack(members: dict[str, bytes], style: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=style) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


TREE = {f"{'cat' if n % 2 else 'dog é'}/{n:02}.png": png(n) for n in range(4)}
LABELS = json.dumps({"labels": [[name, n] for n, name in enumerate(TREE)]}).encode()


def zips() -> list[bytes]:
    listed = {"dataset.json": LABELS} | TREE
    return [
        zipped(TREE),
        zipped(TREE | {"notes.txt": b"text", "noname": png(9)}, zipfile.ZIP_DEFLATED),
        zipped(listed),
        zipped(listed, zipfile.ZIP_DEFLATED),
    ]


def tars() -> list[bytes]:
    samples = {f"{n:03}.{end}": d for n in range(3) for end, d in (("png", png(n)), ("cls", b"%d" % n))}
    described = {f"{n:03}.{end}": d for n in range(3) for end, d in (("png", png(n)), ("json", b'{"label": 1}'))}
    long_names = {f"{'very-long-name-' * 9}{name}": data for name, data in TREE.items()}
    return [
        *(pack(TREE, style) for style in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)),
        *(pack(long_names, style) for style in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)),
        pack(samples),
        pack(described),
    ]


def nested_tars() -> list[bytes]:
    classes = {f"{name}.tar": pack({f"{name}_{n}.JPEG": png(n) for n in range(2)}) for name in ("n02", "n01")}
    return [pack(classes), pack({"beside.png": png(3)} | classes, tarfile.GNU_FORMAT)]


def with_header_sums(data: bytes) -> bytes:
    """A tar whose headers have right checksums, those of the tars in it, too."""
    found = bytearray(data)
    for at in range(0, len(found) - 511, 512):
        block = found[at : at + 512]
        if b"ustar" in block[257:263]:
            block[148:156] = b" " * 8
            found[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    return bytes(found)


def with_member_sums(data: bytes) -> bytes:
    """A zip whose stored members have right checksums, in both places."""
    found = bytearray(data)
    for match in re.finditer(rb"PK\x01\x02", data):
        entry = match.start()
        if entry + 46 > len(found):
            break
        size, local = *struct.unpack_from("<I", found, entry + 20), *struct.unpack_from("<I", found, entry + 42)
        if struct.unpack_from("<H", found, entry + 10)[0] or local + 30 > len(found):
            continue
        first = local + 30 + sum(struct.unpack_from("<2H", found, local + 26))
        checksum = zlib.crc32(found[first : first + size]).to_bytes(4, "little")
        found[entry + 16 : entry + 20] = found[local + 14 : local + 18] = checksum
    return bytes(found[: len(data)])


def lmdbs() -> list[bytes]:
    found = []
    for count, side in ((3, 4), (200, 4), (2, 60)):
        with tempfile.TemporaryDirectory() as folder:
            with lmdb.open(folder, map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
                for n in range(count):
                    transaction.put(b"%040x" % n, encoded(noise(side, n), "PNG"))
            found.append(Path(folder, "data.mdb").read_bytes())
    return found


def parquets() -> list[bytes]:
    structs = pa.array([{"bytes": data, "path": None} for data in TREE.values()])
    tables = [
        pa.table({"image": structs, "label": [0, 1, 2, 1]}),
        pa.table({"image": list(TREE.values()), "label": ["dog", "cat", "dog", "cat"]}),
    ]
    features = {"info": {"features": {"label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}}}
    tables.append(tables[0].replace_schema_metadata({"huggingface": json.dumps(features)}))
    found = []
    for table in tables:
        for compression in ("none", "snappy", "zstd"):
            buffer = io.BytesIO()
            pq.write_table(table, buffer, compression=compression, row_group_size=3)
            found.append(buffer.getvalue())
    return found


def arrays() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), np.uint8)
    found = []
    for save, named in ((np.savez, False), (np.savez_compressed, False), (np.savez, True)):
        buffer = io.BytesIO()
        labels = np.arange(3)
        save(buffer, images=pixels, labels=labels) if named else save(buffer, pixels, labels)
        found.append(buffer.getvalue())
    return found


def lone_arrays() -> list[bytes]:
    found = []
    for shape in ((3, 6, 5, 3), (3, 6, 5), (3, 6, 5, 1)):
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(shape, np.uint8))
        found.append(buffer.getvalue())
    return found


def read_source(name: str, beside: dict[str, bytes] | None = None, place: str = "") -> Callable[[Path], Run]:
    """List a damaged source and open its pictures; then open the pictures of a sound one in the damaged file."""

    def runner(folder: Path) -> Run:
        for other, data in (beside or {}).items():
            folder.joinpath(other).parent.mkdir(parents=True, exist_ok=True)
            folder.joinpath(other).write_bytes(data)
        path = folder / name
        before: list[Any] = []

        def run(data: bytes) -> None:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            location = str(folder / place if place else path)
            if before:
                read_rows(*before)
            source = open_source(location)
            rows = list(source.rows())
            if not before:
                before.extend((source.kind, source.location, rows))
            read_rows(source.kind, source.location, rows)

        return run

    return runner


def read_rows(kind: str, location: str, rows: list[Any]) -> None:
    from lvae.manifests.errors import LvaeError

    reader = open_reader(kind, location)
    for row in rows[:ROWS_READ]:
        try:
            open_image(read_bytes(row, reader))
        except ImageRejected as rejection:
            assert rejection.reason.isprintable()
        except LvaeError as error:
            assert str(error).isprintable(), str(error)
    reader.close()


# --- text ----------------------------------------------------------------------------------------------------------

NAMES = "\n".join(f"{name},{n % 2}" for n, name in enumerate(TREE)).encode()
LINES = [json.dumps({"key": name, "label": n}).encode() for n, name in enumerate(TREE)]


def listings() -> list[bytes]:
    """Beginning with the ending of the file's name."""
    paths = [json.dumps({"path": name, "label": "a"}).encode() for name in TREE]
    return [
        b"csv:path,label\n" + NAMES,
        b"csv:" + NAMES,
        b"jsonl:" + b"\n".join(paths),
        b"txt:" + b"\n".join(name.encode() for name in TREE),
        b"txt:" + b"\n".join(f"{name} {n}".encode() for n, name in enumerate(TREE)),
    ]


def read_listing(folder: Path) -> Run:
    def run(data: bytes) -> None:
        kind, _, text = data.partition(b":")
        ending = kind.decode("ascii", "replace")
        if ending not in ("csv", "jsonl", "txt") or b"://" in text:  # nothing is asked of a network
            return
        read_source(f"list.{ending}", TREE)(folder)(text)

    return run


def label_files() -> list[bytes]:
    by_name = json.dumps(dict.fromkeys(TREE, "a")).encode()
    return [
        b"csv:key,label\n" + NAMES,
        b"csv:" + NAMES,
        b"jsonl:" + b"\n".join(LINES),
        b"json:" + by_name,
        b"json:" + LABELS,
    ]


def read_label_file(folder: Path) -> Run:
    def run(data: bytes) -> None:
        kind, _, text = data.partition(b":")
        ending = kind.decode("ascii", "replace")
        if ending in ("csv", "jsonl", "json"):
            path = folder / f"labels.{ending}"
            path.write_bytes(text)
            list(apply_labels([], read_labels(path)))

    return run


# --- weights -------------------------------------------------------------------------------------------------------


def saved(value: object, new_format: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=new_format)
    return buffer.getvalue()


def members_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


class Inert:
    """An object in a checkpoint."""

    def __init__(self) -> None:
        self.settings, self.rate = {"a": [1, 2.5, None, True]}, np.float64(3)


CHECKPOINT = {"state_dict": STATE, "epoch": 3, "callbacks": {"best": np.float32(0.5), "sizes": (1, 2)}}
SOUND = members_of(saved(CHECKPOINT))
HALF = saved({name: tensor.half() for name, tensor in STATE.items()})


def checkpoints() -> list[bytes]:
    return [
        saved(CHECKPOINT),
        HALF,
        zipped(members_of(saved(STATE)), zipfile.ZIP_DEFLATED),
        zipped({"model.ckpt": saved(STATE, new_format=False)}, zipfile.ZIP_DEFLATED),
        zipped({"model.ckpt": saved(STATE)}),
    ]


def programs() -> list[bytes]:
    """Pickles of checkpoints, which go into a sound file; some with protocols that torch does not write."""
    found = [SOUND["archive/data.pkl"], members_of(HALF)["archive/data.pkl"]]
    return [*found, *(pickle.dumps({"state_dict": {}, "object": [Inert(), 1 << 70]}, n) for n in (0, 2, 4, 5))]


def safetensors() -> list[bytes]:
    """The second holds diffusers' names, half the precision and no tensors in order."""
    state = to_diffusers(STATE, SMALL | {"attention_levels": [], "middle_attention": True})
    header, numbers = {}, b""
    for name, tensor in reversed(state.items()):
        data = tensor.half().numpy().tobytes()
        offsets = [len(numbers), len(numbers) + len(data)]
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": offsets}
        numbers += data
    text = json.dumps(header).encode()
    return [save_safetensors(load(SMALL, "random:5")), len(text).to_bytes(8, "little") + text + numbers]


def with_header_length(data: bytes) -> bytes:
    """A .safetensors file whose header is as long as it says: up to the last closing brace."""
    end = data.rfind(b"}", 8, len(data) // 2) + 1
    return data if end < 9 else (end - 8).to_bytes(8, "little") + data[8:]


def load_weights(name: str, wrap: Callable[[bytes], bytes] = bytes) -> Callable[[Path], Run]:
    def runner(folder: Path) -> Run:
        path = folder / name

        def run(data: bytes) -> None:
            path.write_bytes(wrap(data))
            load_file(path)

        return run

    return runner


def as_program(data: bytes) -> bytes:
    return zipped(SOUND | {"archive/data.pkl": data})


def configs() -> list[bytes]:
    config = {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [2, 4],
        "layers_per_block": 1,
        "latent_channels": 1,
        "scaling_factor": 0.18215,
        "norm_num_groups": 32,
        "act_fn": "silu",
        "latents_mean": None,
    }
    return [
        json.dumps(config).encode(),
        json.dumps(config | {"_class_name": "VQModel", "shift_factor": [1, 2]}).encode(),
    ]


def load_folder(folder: Path) -> Run:
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(safetensors()[1])

    def run(data: bytes) -> None:
        (folder / "config.json").write_bytes(data)
        load_file(folder)

    return run


def specs() -> list[bytes]:
    return [json.dumps(SMALL).encode(), b'{"kind": "tiny", "latent_channels": 4, "width": 8}', b'{"kind": "pixels"}']


def build_spec(folder: Path) -> Run:
    from lvae.encode.catalogue.architectures import parse_spec

    def run(data: bytes) -> None:
        path = folder / "spec.json"
        path.write_bytes(data)
        parse_spec(path)
        parse_spec(data.decode("utf-8", "replace").replace("\0", "?"))

    return run


TARGETS = {
    "ckpt": Target(checkpoints, load_weights("model.ckpt"), with_member_sums),
    "legacy": Target(lambda: [saved(value, False) for value in (CHECKPOINT, STATE)], load_weights("model.pt")),
    "pickle": Target(programs, load_weights("model.pt", as_program)),
    "safetensors": Target(safetensors, load_weights("a.safetensors"), with_header_length),
    "config": Target(configs, load_folder),
    "spec": Target(specs, build_spec),
    "zip": Target(zips, read_source("a.zip"), with_member_sums),
    "tar": Target(tars, read_source("a.tar"), with_header_sums),
    "nested": Target(nested_tars, read_source("a.tar"), with_header_sums),
    "lmdb": Target(lmdbs, read_source("lsun/data.mdb", place="lsun")),
    "parquet": Target(parquets, read_source("a.parquet")),
    "npz": Target(arrays, read_source("a.npz"), with_member_sums),
    "npy": Target(lone_arrays, read_source("a.npy")),
    "list": Target(listings, read_listing),
    "labels": Target(label_files, read_label_file),
    "dataset.json": Target(
        lambda: [LABELS, b'{"labels": null}'],
        read_source("f/dataset.json", {f"f/{n}": d for n, d in TREE.items()}, "f"),
    ),
    "image": Target(pictures, open_and_crop, with_chunk_sums),
}
