"""Every command that writes x everything that may lie where it is told to write: nothing of it is touched."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from click import Group
from PIL import Image

from lvae.cli import main
from lvae.encode.autoencoder import load
from lvae.encode.networks.base import save_safetensors
from tests.conftest import SMALL_KL, lvae
from tests.evaluate import run_examples

MARKERS = {
    "sweep": ("sweep.json", {"format": "latent-vae-sweep"}),
    "export": ("model.json", {"format": "latent-vae-export"}),
    "stage": ("fit.json", {"architecture": {}}),
    "decoded": (".decoded.json", {"format": "latent-vae-decoded"}),
    "parts": ("plan.json", {"format": "latent-vae-pictures"}),
}
FOLDERS = ("dataset", "samples", "run", "pictures", "numbered", "empty classes", "others", *MARKERS)
INSIDE = ("dataset/inside", "dataset/shards/inside", "samples/inside", "run/checkpoints/inside", "run/weights/inside")


@dataclass(frozen=True)
class Writer:
    """A command that writes. words: behind `lvae`; {} stands for the output, other names for what lies in the world."""

    words: str
    ending: str = ""

    @property
    def name(self) -> str:
        words = self.words.split()
        return " ".join(words[:2]) if words[0] in ("autoencoder", "latents") else words[0]


WRITERS = (
    Writer("scan scenes {}"),
    Writer("encode scenes {} --autoencoder pixels --size 32"),
    Writer("encode scenes {} --autoencoder pixels --size 32 --dry-run --images-per-second 9"),
    Writer("shard dataset --out {}"),
    Writer("merge dataset other {}"),
    Writer("train dataset {} --steps 1"),
    Writer("sample run {} -n 2 --seed 9 --device cpu"),
    Writer("sweep run {} -n 8 --device cpu"),
    Writer("decode dataset {} --device cpu --format png"),
    Writer("decode dataset {} --device cpu --workers 1 --format png"),
    Writer("decode dataset out.npz --device cpu --workers 1 --parts {}"),
    Writer("decode dataset {} --device cpu", ".npz"),
    Writer("decode dataset {} --device cpu", ".png"),
    Writer("reference dataset {} --features weights.safetensors", ".npz"),
    Writer("features dataset {} --features weights.safetensors", ".npz"),
    Writer("neighbours run dataset {} --device cpu", ".png"),
    Writer("report run {} --device cpu", ".html"),
    Writer("study table4 scenes {} --minutes 0.1"),
    Writer("plot run {}", ".png"),
    Writer("traverse run dataset {}", ".png"),
    Writer("traverse run dataset new.png --arrays {}", ".npz"),
    Writer("interpolate run dataset {}", ".png"),
    Writer("outpaint run dataset {}", ".png"),
    Writer("depths run dataset {}", ".png"),
    Writer("depths run dataset new.png --nats {}", ".png"),
    Writer("explore run --device cpu --picture {}", ".png"),
    Writer("inspect dataset --preview {}", ".png"),
    Writer("inspect dataset --histogram {}", ".png"),
    Writer("import weights.safetensors {}"),
    Writer("latents import numbered {}"),
    Writer("latents export dataset {} --layout npy"),
    Writer("export run {}"),
    Writer("export run {}", ".pt"),
    Writer("autoencoder fit scenes {} --steps 1"),
    Writer("autoencoder convert weights.safetensors {}", ".safetensors"),
    Writer("autoencoder convert weights.safetensors {} --layout diffusers"),
    Writer("autoencoder score pixels-f2 scenes --limit 2 --grid {}", ".png"),
    Writer("scenes {} --count 8"),
    Writer("demo {}"),
)
READERS = {"stats", "verify", "clean", "watch", "doctor", "score", "autoencoder list", "autoencoder fetch"}
INTO_A_RUN = {"residuals"}  # reads it, and adds a file of its own; anything else is no run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """One of everything."""
    root = tmp_path_factory.mktemp("guard")
    data = run_examples.dataset(root / "dataset")
    shutil.copytree(root / "dataset", root / "other")
    run_examples.run(root / "run", data)
    (root / "run" / "metrics.jsonl").touch()
    (root / "run" / "weights").mkdir()
    lvae("sample", root / "run", root / "samples", "-n", "2", "--device", "cpu")
    shutil.copytree(scenes, root / "scenes")
    for name in ("pictures/cats", "numbered", "empty classes/dogs", "others"):
        (root / name).mkdir(parents=True)
    for name in ("pictures/cats/1.png", "numbered/000000.png", "foreign.png"):
        Image.new("RGB", (32, 32)).save(root / name)
    for name in ("others/notes.txt", "foreign.npz", "foreign.html", "foreign.pt", "foreign.safetensors", "foreign"):
        (root / name).write_text("somebody's own")
    for name, (file, content) in MARKERS.items():
        (root / name).mkdir()
        (root / name / file).write_text(json.dumps(content))
    (root / "weights.safetensors").write_bytes(save_safetensors(load(json.loads(SMALL_KL), "random:0")))
    return root


def fingerprints(root: Path) -> dict[str, str]:
    """Every file and folder; a lock that a command has held on a folder of its own kind may stay."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.name not in (".lock", ".tmp"):
            data = path.read_bytes() if path.is_file() else b"folder"
            found[path.relative_to(root).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def test_the_table_has_every_command() -> None:
    commands = {name for name, command in main.commands.items() if not isinstance(command, Group)}
    groups = {
        f"{name} {one}" for name, group in main.commands.items() if isinstance(group, Group) for one in group.commands
    }
    assert {writer.name for writer in WRITERS} | READERS | INTO_A_RUN == commands | groups, (
        "a new command goes through the guard"
    )


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: f"{writer.words} {writer.ending}".strip())
def test_nothing_that_is_there_is_touched(writer: Writer, world: Path) -> None:
    before = fingerprints(world)
    outputs = [*FOLDERS, *INSIDE, f"foreign{writer.ending}", *(f"{place}{writer.ending}" for place in INSIDE)]
    outputs += ["scenes", "scenes/inside"] if " scenes" in writer.words else []

    for output in dict.fromkeys(outputs):
        if output == "parts" and "--parts" in writer.words:
            continue  # of its own kind, and damaged: made anew
        words = [output if word == "{}" else word for word in writer.words.split()]
        done = lvae(*words, check=None, cwd=world)
        assert done.returncode in (1, 2), f"{output}: {done.stdout} {done.stderr}"
        assert done.stderr.splitlines()[-1].startswith(("lvae: ", "Error: ")), done.stderr
        assert fingerprints(world) == before, output


@pytest.mark.parametrize("name", ["grid.jpg", "latents.zip", "rep.pdf", "model.pt"])
@pytest.mark.parametrize("words", ["decode dataset {}", "train dataset {}", "report run {}", "encode scenes {}"])
def test_unknown_endings_make_no_folder(words: str, name: str, world: Path) -> None:
    done = lvae(*[name if word == "{}" else word for word in words.split()], check=1, cwd=world)
    assert name in done.stderr and "end" in done.stderr
    assert not (world / name).exists()


def test_a_link_into_a_dataset_is_no_way_around(world: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(world / "dataset")
    before = fingerprints(world)
    assert "which is a dataset" in lvae("plot", world / "run", tmp_path / "link" / "curves.png", check=1).stderr
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "out")
    done = lvae("encode", tmp_path / "photos", tmp_path / "out", check=1)
    assert "through the link" in done.stderr and not (tmp_path / "out").exists()
    (tmp_path / "photos" / "circle").symlink_to(tmp_path / "photos" / "circle")
    assert "through the link" in lvae("encode", tmp_path / "photos", tmp_path / "out", check=1).stderr
    assert fingerprints(world) == before


def test_a_figure_of_ours_is_replaced_and_one_of_others_is_not(world: Path, tmp_path: Path) -> None:
    for _ in range(2):
        lvae("inspect", world / "dataset", "--histogram", tmp_path / "ours.png")
    Image.open(tmp_path / "ours.png").save(tmp_path / "edited.png")
    done = lvae("inspect", world / "dataset", "--histogram", tmp_path / "edited.png", check=1)
    assert "no lvae command wrote it" in done.stderr


def test_pictures_of_an_earlier_decode_do_not_stay(world: Path, tmp_path: Path) -> None:
    for limit, workers in (("5", ()), ("2", ()), ("4", ("--workers", "1")), ("3", ("--workers", "1"))):
        lvae("decode", world / "dataset", tmp_path / "out", "--limit", limit, "--device", "cpu", *workers)
        names = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
        assert names == [f"{number:06d}.png" for number in range(int(limit))]
    done = lvae("decode", world / "samples", tmp_path / "out", check=1)
    assert "decoded from other latents" in done.stderr
    Image.new("RGB", (4, 4)).save(tmp_path / "out" / "000099.png")
    done = lvae("decode", world / "dataset", tmp_path / "out", check=1)
    assert "000099.png" in done.stderr and (tmp_path / "out" / "000099.png").exists()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("encode scenes {} --autoencoder pixels --size 32", "shards/mine/000.tar"),
        ("encode scenes {} --autoencoder pixels --size 32", "shards/train-000000.tar"),
        ("encode scenes {} --autoencoder pixels --size 32", "raw/000000/part-notes.txt"),
        ("encode scenes {} --autoencoder pixels --size 32", "erased/notes.parquet"),
        ("encode scenes {} --autoencoder pixels --size 32", "timings/mine.csv"),
        ("encode scenes {} --autoencoder pixels --size 32", "rejected.jsonl"),
        ("train dataset {} --steps 1", "metrics.jsonl"),
        ("train dataset {} --steps 1", "checkpoints/epoch-3/model.bin"),
        ("decode dataset out.npz --device cpu --workers 1 --parts {}", "parts/gear.step"),
        ("decode dataset out.npz --device cpu --workers 1 --parts {}", "given/notes.txt"),
    ],
)
def test_a_folder_with_the_name_of_one_of_ours_is_somebodys_own(
    words: str, name: str, world: Path, tmp_path: Path
) -> None:
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text("somebody's own")
    done = lvae(*[tmp_path / "out" if word == "{}" else word for word in words.split()], check=1, cwd=world)
    assert f"({name})" in done.stderr and "not a place for" in done.stderr
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [file]
