"""The guard of everything that is written: an output is new, or empty, or of the command's own kind.

Every command that writes calls `guard_output` before it does anything else. What is there already and was made by the
same command goes on (the command compares the settings); everything else is refused, and nothing is touched, not even
by a lock.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.open import LOCAL, folder_at, may_hold_a_dataset
from lvae.manifests.storage.places.kinds import OWN_FILES, Kind, kind_by_ending, kind_of, marked_kind
from lvae.manifests.storage.places.marks import is_marked

ELSEWHERE = "Name a new or empty folder."
OPEN = {  # folders of ours in which others may lie, beside these files of their own
    Kind.RUN: {
        "config.json",
        "metrics.jsonl",
        "checkpoints",
        "weights",
        "previews",
        "residuals",
        "tensorboard",
        "report",
    }
    | {"wandb", "profile"},
    Kind.AUTOENCODER_RUN: {"fit.json", "pictures.bin", "pictures.json", "metrics.jsonl", "checkpoints", "previews"}
    | {"tensorboard", "architecture.json", "autoencoder.safetensors"},
    Kind.SWEEP: {"sweep.json", "sweep.png", "scores.png", "samples"},
    Kind.STUDY: {"study.json", "results", "table.md", "table.json", "page.html"},
}


@dataclass(frozen=True)
class FolderOutput:
    """A folder that a command makes.

    name: with its article. kinds: what may be there already. leftovers: a pattern of names that the command may have
    left before it wrote its marker. instead: of a name with the ending of a file.
    """

    name: str
    kinds: frozenset[Kind]
    leftovers: str = "(?!)"
    instead: str = "Leave the ending out."


@dataclass(frozen=True)
class FileOutput:
    """A file that a command makes. compared: the command itself refuses a file that differs."""

    name: str
    endings: tuple[str, ...]
    compared: bool = False


DATASET = FolderOutput(
    "a dataset",
    frozenset({Kind.DATASET, Kind.UNFINISHED}),
    r"rows/(\d{6}\.parquet)?|weights/([0-9a-f]{64}\.safetensors)?|"
    r"timings/(source\.json|\d{6}/(part-\d{6,}(\.enlarged)?\.json)?)?|"
    r"erased/([0-9a-f]{16}\.parquet)?|raw/(\d{6}/(part-\d{6,}\.(json|[0-9a-f]{8}\.npy))?)?|"
    r"shards/([a-z]+-(zarr|webdataset)-(float16|float32|uint8)-[0-9a-f]{8}/.*)?",
)
RUN = FolderOutput(
    "a run",
    frozenset({Kind.RUN}),
    r"weights/([0-9a-f]{64}\.safetensors)?|checkpoints/((step-\d{8,}|\.unfinished-[^/]*)/.*)?",
)
AUTOENCODER_RUN = FolderOutput("a run of 'lvae autoencoder fit'", frozenset({Kind.AUTOENCODER_RUN}))
SAMPLES = FolderOutput("a folder of samples", frozenset({Kind.SAMPLES}))
SWEEP = FolderOutput("a sweep", frozenset({Kind.SWEEP}), r"samples/.*")
STUDY = FolderOutput("a study", frozenset({Kind.STUDY}))
PICTURES = FolderOutput(
    "a folder of pictures",
    frozenset({Kind.DECODED}),
    instead="A grid of all pictures is OUT.png, arrays are OUT.npz; a folder of pictures has no ending.",
)
PARTS = FolderOutput(
    "a folder of parts", frozenset({Kind.PARTS}), r"parts/(part-\d{6,}\..*)?|given/([0-9a-f]{12}(\..*)?)?"
)
EXPORT = FolderOutput(
    "an exported model",
    frozenset({Kind.EXPORT}),
    r"model\.safetensors|weights/([0-9a-f]{64}\..*)?",
    "OUT.pt is the published layout; a folder has no ending.",
)
CACHE = FolderOutput("latents for another trainer", frozenset({Kind.CACHE}))
DEMO = FolderOutput(
    "a demo",
    frozenset(),
    r"(scenes|latents|run|samples-\d)(/.*)?|(reconstructions|latents|samples|curves)\.png|report\.html|"
    r"scores-efficientnet-lite0\.json|demo\.json",
)
DIFFUSERS = FolderOutput("a folder of weights", frozenset(), r"config\.json|diffusion_pytorch_model\.safetensors")
PNG = FileOutput("a picture", (".png",))
NPZ = FileOutput("arrays", (".npz",))
HTML = FileOutput("a page", (".html", ".htm"))
ZIP = FileOutput("an archive", (".zip",), compared=True)
SAFETENSORS = FileOutput("a file of weights", (".safetensors",), compared=True)
TORCH = FileOutput("a file of weights", (".pt",), compared=True)


def guard_output(out: str | Path, output: FolderOutput | FileOutput, sources: Iterable[str | Path | None] = ()) -> None:
    """LvaeError where an output may not be written: it is something else, or lies among files that it is made from.

    sources: every path that the command reads; None is passed over.
    """
    text = str(out)
    if "://" in text and not text.startswith(LOCAL):
        if isinstance(output, FolderOutput):
            _guard_store(text, output, [str(source) for source in sources if source is not None])
        return
    path = folder_at(text).root if text.startswith(LOCAL) else Path(out)
    if "\0" in text or not text:
        raise LvaeError(repr(text), f"is no name for {output.name}", "Name a path.")
    _refuse_overlap(
        path, output, [Path(source) for source in sources if source is not None and "://" not in str(source)]
    )
    _refuse_inside(path, output)
    if isinstance(output, FileOutput):
        _guard_file(path, output)
    else:
        _guard_folder(path, output)


def _guard_folder(path: Path, output: FolderOutput) -> None:
    found = kind_of(path)
    if found in output.kinds or found == Kind.EMPTY:
        return
    if found == Kind.MISSING:
        if kind_by_ending(path) is not None:
            raise LvaeError(path, f"ends in {path.suffix}, which is not written here", output.instead)
        _refuse_file_above(path)
        return
    if not found.is_folder:
        raise LvaeError(path, f"is {found.value}, and {output.name} is a folder", ELSEWHERE)
    if found in (Kind.IMAGES, Kind.FOLDER):
        strange = _first_strange(path, re.compile(output.leftovers))
        if strange is None:
            return
        raise LvaeError(path, f"is {found.value} ({strange}), not a place for {output.name}", ELSEWHERE)
    raise LvaeError(path, f"is {found.value}, not a place for {output.name}", ELSEWHERE)


def _first_strange(folder: Path, leftovers: re.Pattern[str]) -> str | None:
    """A file, or an empty folder, that is none of the leftovers."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in OWN_FILES)
        below = Path(parent).relative_to(folder)
        names = [(below / name).as_posix() for name in sorted(files) if name not in OWN_FILES]
        if not names and not folders and below.parts:
            names = [f"{below.as_posix()}/"]
        strange = next((name for name in names if leftovers.fullmatch(name) is None), None)
        if strange is not None:
            return strange
    return None


def _guard_file(path: Path, output: FileOutput) -> None:
    if path.is_dir():
        raise LvaeError(
            path, f"is {kind_of(path).value}, and {output.name} is a file", f"Name it ...{output.endings[0]}."
        )
    if path.suffix.lower() not in output.endings:
        name = path.with_suffix(output.endings[0]) if path.suffix else f"{path}{output.endings[0]}"
        raise LvaeError(path, f"does not end in {' or '.join(output.endings)}", f"Name it {name}.")
    if not os.path.lexists(path):
        _refuse_file_above(path)
    elif not output.compared and not (path.is_file() and (path.stat().st_size == 0 or is_marked(path))):
        raise LvaeError(path, "is there already, and no lvae command wrote it", "Name another file, or remove it.")


def _refuse_file_above(path: Path) -> None:
    above = next((one for one in path.absolute().parents if os.path.lexists(one)), None)
    if above is not None and not above.is_dir():
        raise LvaeError(path, f"cannot be written to: {above} is a file", "Name another place.")


def _refuse_overlap(path: Path, output: FolderOutput | FileOutput, sources: list[Path]) -> None:
    real = _resolve(path)
    for source in sources:
        its = _resolve(source)
        if not its.exists():
            continue  # a pattern, or what the command itself has to say something about
        if its == real:
            raise LvaeError(path, "is read and would be written, too", "Name another place for the output.")
        if its in real.parents and marked_kind(its) not in OPEN:
            raise LvaeError(path, f"lies in the source {source}", "Name a place elsewhere.")
        if real in its.parents and isinstance(output, FolderOutput) and kind_of(path) not in output.kinds:
            raise LvaeError(path, f"holds the source {source}", ELSEWHERE)
        for link in _links(its):
            if isinstance(output, FolderOutput) and _resolve(link) in (real, *real.parents):
                raise LvaeError(path, f"is part of the source {source}, through the link {link}", ELSEWHERE)


def _resolve(path: Path) -> Path:
    """Where links lead; of links that lead in a circle, as far as they can be followed."""
    return Path(os.path.realpath(path))


def _links(folder: Path) -> Iterator[Path]:
    """The links right in a folder."""
    if folder.is_dir():
        with os.scandir(folder) as entries:
            yield from (Path(entry.path) for entry in entries if entry.is_symlink())


def _refuse_inside(path: Path, output: FolderOutput | FileOutput) -> None:
    """Nothing is written into a dataset, samples or the like, and into a run only beside its own files."""
    real = _resolve(path)
    for above in real.parents:
        found = marked_kind(above)
        if found is None:
            continue
        if found not in OPEN or real.relative_to(above).parts[0] in OPEN[found]:
            raise LvaeError(path, f"lies in {above}, which is {found.value}", "Name a place outside of it.")
        return


def _guard_store(url: str, output: FolderOutput, sources: list[str]) -> None:
    place = url.rstrip("/")
    for source in sources:
        its = source.rstrip("/")
        if place == its or place.startswith(f"{its}/") or its.startswith(f"{place}/"):
            raise LvaeError(url, f"is not apart from the source {source}", "Name a place elsewhere.")
    if not may_hold_a_dataset(url) or kind_of(url) in output.kinds:
        return  # what cannot hold a dataset is refused by whoever opens it
    leftovers = re.compile(output.leftovers)
    names = (name for name in folder_at(url).names() if name.partition("/")[0] not in OWN_FILES)
    strange = next((name for name in names if leftovers.fullmatch(name) is None), None)
    if strange is not None:
        raise LvaeError(url, f"holds other files ({strange}), not a place for {output.name}", ELSEWHERE)
