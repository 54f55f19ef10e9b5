"""The stories of docs/datasets.md, run from its text in an empty folder, one behind the other."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lvae.encode.scenes.make import write_scenes
from lvae.manifests.storage.folder import Folder
from lvae.manifests.verify.verify import verify

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "datasets.md").read_text()
STORIES = TEXT.split("\n## Stories\n", 1)[1].split("\n## ", 1)[0]
READING = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def story(title: str) -> list[list[str]]:
    text = STORIES.split(f"### {title}\n", 1)[1].split("\n### ", 1)[0]
    return [shlex.split(line) for line in text.splitlines() if line.startswith("    ")]


def run(command: list[str], folder: Path, check: bool = True) -> int:
    program = [sys.executable, "-m", "lvae"] if command[0] == "lvae" else command[:1]
    return subprocess.run([*program, *command[1:]], cwd=folder, check=check).returncode


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """What the stories speak of: for each test anew, since they change it."""
    folder = tmp_path / "stories"
    for seed, name in enumerate(["photos", "later", "more-photos", "new-photos"]):
        write_scenes(folder / name, 32, 32, seed)
    for name in ("later", "more-photos", "new-photos"):
        for path in list((folder / name).rglob("*.png")):
            path.rename(path.with_name(f"{name}-{path.name}"))
    shutil.make_archive(str(folder / "more-photos"), "zip", folder / "more-photos")
    (folder / "constants.json").write_text('{"shift": [0, 0.1, 0.2], "scale": 0.5}')
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_stories_of_a_dataset_run_from_their_text(world: Path) -> None:
    titles = re.findall(r"^### (.*)$", STORIES, re.MULTILINE)
    told = {title: story(title) for title in titles}
    for command in told.pop("The first day"):
        run(command, world)
    shutil.copytree(world / "later", world / "photos", dirs_exist_ok=True)
    for command in told.pop("New images arrive"):
        run(command, world)
    keys = pq.read_table(world / "latents/rows")["key"].to_pylist()
    assert len(keys) == 96
    (world / "takedown.txt").write_text(f"{keys[0]}\n{keys[40]}\n")
    for command in told.pop("Something must go"):
        run(command, world)
    for command in told.pop("Another normalization, format, dtype, split, order"):
        run(command, world)
    run(shlex.split("lvae encode new-photos new-latents --autoencoder pixels-f2 --size 32 --mirror"), world)
    refused, skipped = told.pop("Two datasets become one")
    run(refused, world)
    run(skipped, world)
    run([*skipped[:3], "small", "again", *skipped[5:]], world)
    for command in told.pop("Statistics"):
        run(command, world)
    check, mend = told.pop("Something is damaged")
    damaged = next((world / "latents/raw").glob("*/part-000000.*.npy"))
    data = damaged.read_bytes()
    damaged.unlink()  # the file itself is linked into other datasets
    damaged.write_bytes(data[:-1] + b"?")
    assert run(check, world, check=False) == 1
    run(mend, world)
    run(check, world)
    moved = told.pop("The folder moves")
    shutil.copytree(world / "latents", world / "kept")
    for command in moved:
        run(command, world)
    for command in told.pop("Smaller"):
        run(command, world)
    assert not told
    for name in ("elsewhere", "small", "both", "again"):
        assert verify(Folder(world / name), deep=True) == [], name
    assert len(verify(Folder(world / "kept"), deep=True)) == 0


def test_the_shards_are_read_as_the_text_says(world: Path) -> None:
    for name, options in (("latents", []), ("tars", ["--format", "webdataset"])):
        command = [
            "lvae",
            "encode",
            "photos",
            f"reading/{name}",
            "--autoencoder",
            "pixels-f2",
            "--size",
            "32",
            *options,
        ]
        run(command, world)
    with_numpy, with_zarr, with_webdataset, with_pipeline, with_torch = READING
    check = (
        "assert np.array_equal(Dataset.open('latents').latents[:8], first) and len(sample) == 3\n"
        "assert latents.shape == (32, 3, 16, 16) and labels.shape == (32,)\n"
    )
    program = (
        f"{with_numpy}\nfirst = np.array(latents[:8])\n{with_zarr}\n"
        f"assert latents.shape == (10, 3, 16, 16)\n{with_webdataset}\n{with_pipeline}\n"
        "assert latents.shape == (3, 16, 16) and latents.dtype == np.float32 and 0 <= label < 8 and key\n"
        f"if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in f"{with_torch}\n{check}".splitlines())
    )
    (world / "reading/reading.py").write_text(program)
    subprocess.run([sys.executable, "-W", "ignore", "reading.py"], cwd=world / "reading", check=True)
