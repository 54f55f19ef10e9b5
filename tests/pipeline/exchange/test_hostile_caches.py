"""Files of caches with bytes changed, cut, put in and swapped: numbers, rejected rows, or one line."""

import random
import resource
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lvae.manifests.errors import LvaeError
from lvae.pipeline.exchange.caches.open import Choice, open_cache
from lvae.pipeline.exchange.export import ExportOptions, Layout, export
from lvae.pipeline.exchange.part import convert
from lvae.pipeline.exchange.settings import Conversion
from tests.manifests.dataset_examples import Contents, build
from tests.pipeline.exchange.cache_examples import WRITERS

MUTATIONS = 50
EXPORTS: tuple[Layout, ...] = ("edm2", "lightningdit", "dit", "npy", "safetensors")


def exported(layout: Layout) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        contents = Contents(images=12, rejected=frozenset(), classes=("a", "b", "c"))
        made = build(path.with_name(f"{path.name}-dataset"), contents, only_classes=["a", "b", "c"])
        export(made.open(), path, ExportOptions(layout, scale=1.0), lambda _: None, lambda _: None)

    return write


CACHES = WRITERS | {f"exported {layout}": exported(layout) for layout in EXPORTS}


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Near the front as often as anywhere, since that is where files say what they are."""
    end = len(data) if chance.random() < 0.5 else min(len(data), 256)
    place = chance.randrange(max(1, end))
    match chance.randrange(6):
        case 0:
            return data[:place]
        case 1:
            return data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]
        case 2:
            return data[:place] + chance.randbytes(chance.randrange(1, 64)) + data[place:]
        case 3:
            return data[:place] + b"\xff" * 8 + data[place + 8 :]
        case 4:
            return data[:place] + data[place + chance.randrange(1, 64) :]
        case _:
            digits = [index for index, byte in enumerate(data[:4096]) if 48 <= byte < 58] or [0]
            at = chance.choice(digits)
            return data[:at] + chance.choice([b"99999999999999999999", b"-1", b"1e9", b"0"]) + data[at + 1 :]


@pytest.mark.slow
@pytest.mark.parametrize("name", CACHES)
def test_changed_files_give_numbers_or_one_line(tmp_path: Path, name: str) -> None:
    CACHES[name](tmp_path / "whole" / name) if name.startswith("exported") else _write(tmp_path / "whole", name)
    chance, met = random.Random(name), 0
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in range(MUTATIONS):
        place = tmp_path / f"{number}" / name
        place.parent.mkdir()
        whole = tmp_path / "whole" / name
        shutil.copytree(whole, place) if whole.is_dir() else shutil.copyfile(whole, place)
        files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
        told = [path for path in files if path.suffix in (".json", ".jsonl")]
        path = chance.choice(told if told and chance.random() < 0.4 else files)
        path.write_bytes(mutate(path.read_bytes(), chance))
        tracemalloc.start()
        try:
            cache = open_cache(str(place), Choice(channels=4))
            rows = list(cache.rows())
            out = np.empty((len(rows), cache.orientations, *cache.shape), np.float32)
            with np.errstate(all="ignore"):
                met += bool(cache.read(rows, out))
                convert(out, cache.moments is not None, cache.moments == "deviation", Conversion(1.0))
        except LvaeError as error:
            met += 1
            assert "\n" not in str(error) and len(str(error)) < 1200, str(error)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 64 << 20, f"{path}: {peak} bytes"
        shutil.rmtree(place.parent)
    assert met > MUTATIONS // 10
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limit


def _write(folder: Path, name: str) -> None:
    folder.mkdir()
    WRITERS[name](folder / name)
