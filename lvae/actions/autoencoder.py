"""What `lvae autoencoder` does with its options."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lvae.encode.quality.fidelity import Pixels
    from lvae.encode.training.config import FitConfig
    from lvae.encode.training.fit import Fitted
    from lvae.pipeline.progress.console import Bar


EFFICIENTNET = "efficientnet-lite0"
GRID_PICTURES = 16  # on one page


def make_fit_config(source: str, options: dict[str, Any]) -> "FitConfig":
    from dataclasses import fields

    from lvae.encode.catalogue.architectures import describe, parse_spec
    from lvae.encode.training.config import FitConfig

    given = {field.name: options[field.name] for field in fields(FitConfig) if field.name in options}
    size, sides = options["size"], options["shorter_side"]
    given["architecture"] = describe(parse_spec(options["architecture"]))
    given["only_classes"] = tuple(options["only_classes"].split(",")) if options["only_classes"] else None
    given["shorter_side"] = (size * 3 // 2, size * 3) if sides is None else _whole_range(sides)
    given["validation"] = options["validation"]
    given["start_sha256"] = None if options["init"] is None else _hash_files(_weights_files(options["init"]))
    if options["perceptual"] is not None:
        given["perceptual_sha256"] = _hash_files(_perceptual_files(options["perceptual"]))
    given["without_keys"] = _find_keys(source, options["without_keys"])
    return FitConfig(**given)


def _find_keys(source: str, file: Path | None) -> tuple[str, ...] | None:
    """Hashes of the keys in a file. LvaeError for keys that no image has."""
    if file is None:
        return None
    if not file.exists():
        raise LvaeError(f"--without-keys {file}", "no such file", "Write a file with one key a line.")
    from lvae.encode.sources.open import open_source
    from lvae.manifests.views.named_keys import find_keys, read_key_lines
    from lvae.manifests.views.selection import key_hash

    lines = read_key_lines(file)
    found = find_keys(lines, (row.key for row in open_source(source).rows()))
    if found.missing:
        problem = (
            f"no image has {len(found.missing)} of these {counted(len(lines), 'key')}, {found.missing[0]!r} for one"
        )
        raise LvaeError(f"--without-keys {file}", problem, "'lvae inspect DATASET --rows' shows keys.")
    return tuple(sorted(map(key_hash, found.keys))) or None


def remember_settings(out: Path, config: "FitConfig", unsaid: set[str]) -> "FitConfig":
    """The settings of the run that is there, for all options that a command line does not give."""
    from dataclasses import fields, replace

    from lvae.encode.training.config import SETTINGS, FitConfig
    from lvae.manifests import records
    from lvae.manifests.storage.folder import Folder

    data = Folder(out).read_if_there(SETTINGS)
    if data is None:
        return config
    old = records.parse(FitConfig, data, f"{out}/{SETTINGS}")
    options = {"start_sha256": "init"}
    kept = [field.name for field in fields(FitConfig) if options.get(field.name, field.name) in unsaid]
    return replace(config, **{name: getattr(old, name) for name in kept})


def _perceptual_files(given: str) -> list[Path]:
    """The files whose bytes decide what `--perceptual` computes: VGG,LPIPS, or those of a network by its name."""
    if given != EFFICIENTNET:
        paths = [Path(name) for name in given.split(",")]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise LvaeError(missing[0], "no such file", f"--perceptual is {EFFICIENTNET}, or two files as VGG,LPIPS.")
        return paths
    from lvae.encode.quality.efficientnet import weights_path

    return [weights_path()]


def _weights_files(given: str) -> list[Path]:
    """One file, or two as ENCODER,DECODER."""
    paths = [Path(name) for name in ([given] if Path(given).exists() else given.split(","))]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise LvaeError(f"{missing[0]}", "no such file", "Name a file of weights.")
    return paths


def _hash_files(paths: "list[Path]") -> str:
    """A hash over the files' own hashes, since what they hold decides the result."""
    from lvae.manifests.records import sha256_of
    from lvae.manifests.storage.folder import file_sha256

    return sha256_of([file_sha256(path) for path in paths])


def _whole_range(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if not (low.isdigit() and (high.isdigit() or not dash)):
        raise LvaeError(f"--shorter-side {text}", "write two numbers of pixels, as in 96-192")
    return int(low), int(high or low)


def make_counter(bar: "Bar") -> Callable[[int, int], None]:
    """Tells the bar (done, total); the first call is the beginning."""
    begun = False

    def count(done: int, total: int) -> None:
        nonlocal begun
        if not begun:
            begun = True
            bar.begin(total, done)
        bar.at(done)

    return count


def draw_pairs(pairs: "Sequence[tuple[Pixels, Pixels]]", title: str) -> bytes:
    """A PNG of originals beside reconstructions, with the error of each."""
    from lvae.encode.quality.fidelity import psnr
    from lvae.evaluate.figures import grids
    from lvae.evaluate.figures.drawing import Captioned, png

    shown = [(Captioned(one, "original"), Captioned(other, f"{psnr(one, other):.1f} dB")) for one, other in pairs]
    return png(grids.draw_pairs(title, shown))


def print_fitted(fitted: "Fitted") -> None:
    click.echo(f"{fitted.weights}: {fitted.parameters} parameters, {fitted.steps} updates")
    if fitted.psnr_db is not None:
        click.echo(
            f"{fitted.psnr_db:.2f} dB, SSIM {fitted.ssim:.3f} on {fitted.validation_pictures} pictures set aside, "
            f"at {fitted.validation_size} px"
        )
    click.echo(f"fingerprint {fitted.fingerprint}")


def reconstruction_distance(features: Path, pairs: "list[tuple[Any, Any]]") -> tuple[str, float]:
    """Fréchet distance between pictures and their reconstructions: "rfid", or its name for another network."""
    import numpy as np

    from lvae.evaluate.features.feature_network import open_network
    from lvae.evaluate.metrics import frechet_distance_from_features

    network = open_network(features, "adm")
    is_inception = network.name == "inception"
    batch = 1 if is_inception else 32
    starts = range(0, len(pairs), batch)
    sides = (
        np.concatenate([network(np.stack([one[side] for one in pairs[at : at + batch]])).pooled for at in starts])
        for side in (0, 1)
    )
    return "rfid" if is_inception else "network_frechet_distance", float(frechet_distance_from_features(*sides))
