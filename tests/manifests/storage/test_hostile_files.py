"""A stranger's dataset, run and samples under every command: whatever they say, nothing outside of them is touched.

Each example takes a whole world, puts a hostile string or a link in one place of it, makes the hashes right, and runs a
command. An audit hook sees what is opened, listed, made, renamed and removed.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvae.cli import main
from lvae.manifests import records
from tests.conftest import lvae
from tests.evaluate import run_examples

COMMANDS: dict[str, tuple[str, ...]] = {
    "verify": ("verify", "dataset"),
    "verify --deep": ("verify", "--deep", "dataset"),
    "verify samples": ("verify", "--deep", "samples"),
    "clean": ("clean", "dataset"),
    "clean --raw": ("clean", "--raw", "dataset"),
    "clean samples": ("clean", "samples"),
    "inspect": ("inspect", "dataset"),
    "inspect run": ("inspect", "run"),
    "stats": ("stats", "dataset", "--by-class"),
    "encode": ("encode", "images", "dataset"),
    "encode --append": ("encode", "images", "dataset", "--append"),
    "shard": ("shard", "dataset", "--seed", "1", "--workers", "1"),
    "merge": ("merge", "dataset", "whole", "out", "--workers", "1"),
    "train": ("train", "dataset", "run", "--steps", "1", "--device", "cpu"),
    "sample": ("sample", "run", "samples", "-n", "4", "--device", "cpu"),
    "decode": ("decode", "dataset", "out"),
    "decode samples": ("decode", "samples", "out"),
    "decode --parts": ("decode", "dataset", "out", "--parts", "parts", "--workers", "1"),
    "plot": ("plot", "run"),
    "export": ("export", "run", "out"),
}
MORE = COMMANDS | {  # of which some take seconds
    "shard --out": ("shard", "dataset", "--out", "out", "--workers", "1"),
    "shard --format": ("shard", "dataset", "--format", "webdataset", "--workers", "1"),
    "merge as second": ("merge", "whole", "dataset", "out", "--workers", "1", "--skip-duplicates"),
    "inspect --histogram": ("inspect", "dataset", "--histogram", "out.png"),
    "inspect --preview": ("inspect", "dataset", "--preview", "out.png"),
    "watch": ("watch", "dataset", "--once", "--json"),
    "report": ("report", "run", "out.html", "--device", "cpu"),
    "sweep": ("sweep", "run", "out", "-n", "8", "--device", "cpu"),
    "traverse": ("traverse", "run", "dataset", "out.png"),
    "interpolate": ("interpolate", "run", "dataset", "out.png"),
    "outpaint": ("outpaint", "run", "dataset", "out.png"),
    "depths": ("depths", "run", "dataset", "out.png"),
    "neighbours": ("neighbours", "run", "dataset", "out.png", "--device", "cpu"),
    "score": ("score", "--samples", "samples", "--reference", "dataset"),
    "decode to arrays": ("decode", "samples", "out.npz"),
    "train --init": ("train", "dataset", "out", "--steps", "1", "--init", "run", "--device", "cpu"),
    "encode a dataset": ("encode", "dataset", "out", "--workers", "1"),
    "latents import": ("latents", "import", "dataset", "out"),
    "latents export": ("latents", "export", "dataset", "out", "--layout", "npy"),
}
NAMES = ("dataset", "whole", "run", "samples", "images", "out", "parts", "out.png", "out.html", "out.npz")
PATHS = {"path", "weights_sha256", "name", "split", "splits", "files", "layouts", "raw", "index"}
TOUCHES = (
    "open",
    "os.listdir",
    "os.scandir",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.truncate",
)
OF_A_LINK_ITSELF = ("os.rename", "os.remove", "os.rmdir", "os.link")


class Watch:
    """What was done to files below a folder while it was looked at."""

    def __init__(self) -> None:
        self.root, self.seen = "", list[str]()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.root or event not in TOUCHES:
            return
        for argument in arguments[:2]:
            if isinstance(argument, str | bytes | os.PathLike):
                path = Path(os.fsdecode(argument).partition("\0")[0])
                real = str(path.parent.resolve() / path.name if event in OF_A_LINK_ITSELF else path.resolve())
                if real.startswith(self.root):
                    self.seen.append(f"{event} {real}")


watch = Watch()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """whole, dataset (its copy), run, samples, images; and a victim beside them."""
    root = tmp_path_factory.mktemp("world")
    data = run_examples.dataset(root / "whole", images=6, part_size=3, rejected=frozenset())
    shutil.copytree(root / "whole", root / "dataset")
    run_examples.run(root / "run", data)
    (root / "images").mkdir()
    done = CliRunner().invoke(main, ["sample", str(root / "run"), str(root / "samples"), "-n", "4", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    return root


def texts_of(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where strings and names of fields stand in plain JSON; a name as (..., name, None)."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from ((*place, key, None), *texts_of(item, (*place, key)))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from texts_of(item, (*place, number))
    elif isinstance(value, str) or (place and place[-1] == "weights_sha256"):
        yield place


def put(content: Any, place: tuple[Any, ...], text: str) -> None:
    *way, last = place[:-1] if place[-1] is None else place
    for step in way:
        content = content[step]
    if place[-1] is None:
        content[text] = content.pop(last)
    else:
        content[last] = text


def rewrite(path: Path, place: tuple[Any, ...], text: str) -> None:
    """A record, or the first line of records, with another string in it; every hash of it is right."""
    first, line_end, rest = (
        path.read_bytes().partition(b"\n") if path.suffix == ".jsonl" else (path.read_bytes(), b"", b"")
    )
    content = json.loads(first)
    put(content, place, text)
    path.write_bytes(records.line(content) + rest if line_end else signed(content))
    manifest = next((folder / "manifest.json" for folder in path.parents if (folder / "manifest.json").exists()), path)
    if manifest != path:
        described = json.loads(manifest.read_bytes())
        files = described["files"] | {split["index"]["path"]: split["index"] for split in described["splits"].values()}
        record = files.get(path.relative_to(manifest.parent).as_posix(), {})
        record |= {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        manifest.write_bytes(signed(described))


def signed(content: Any) -> bytes:
    """Its own hash is right, where it has one."""
    return records.signed(content) if content.pop("self_sha256", None) is not None else records.dumps(content)


def prepare(world: Path, to: Path) -> Path:
    shutil.copytree(world, to, symlinks=True)
    (to / "victim/sub").mkdir(parents=True)
    for name in ("kept.npy", "sub/kept.json", "manifest.json", "kept.safetensors"):
        (to / "victim" / name).write_bytes(b"{}")
    return to


def run_in(root: Path, command: tuple[str, ...]) -> Result:
    arguments = [str(root / word) if word in NAMES else word for word in command]
    if command[:2] in (("shard", "dataset"), ("merge", "dataset")):
        arguments += ["--dry-run"] if "--dry-run" in SHARD_HELP else []
    victim = {path: path.read_bytes() for path in (root / "victim").rglob("*") if path.is_file()}
    watch.seen, watch.root = [], str(root / "victim")
    try:
        done = CliRunner().invoke(main, arguments)
    finally:
        watch.root = ""
    assert watch.seen == []
    assert {path: path.read_bytes() for path in (root / "victim").rglob("*") if path.is_file()} == victim
    assert {path.name for path in root.iterdir()} <= {*NAMES, "victim"}
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code in (0, 1), done.output
    return done


SHARD_HELP = CliRunner().invoke(main, ["shard", "--help"]).output


def hostile_texts(root: Path) -> list[str]:
    victim = str(root / "victim")
    return [
        "../victim",
        "../../victim",
        "../../../victim/kept",
        victim,
        f"{victim}/kept",
        "..",
        ".",
        "",
        "a/../../victim",
    ]


def attack(
    world: Path, root: Path, draw: Callable[[Any], Any], commands: dict[str, tuple[str, ...]] = COMMANDS
) -> None:
    """One hostile string in one record, then one command."""
    here = prepare(world, root)
    command = draw(st.sampled_from(sorted(commands)))
    reads = [word for word in commands[command] if word in ("dataset", "run", "samples")]
    folder = here / draw(st.sampled_from(reads))
    names = [path for path in folder.rglob("*.json*") if path.name != "metrics.jsonl" and path.stat().st_size]
    path = draw(st.sampled_from(sorted(names)))
    first = path.read_bytes().partition(b"\n")[0] if path.suffix == ".jsonl" else path.read_bytes()
    places = [place for place in texts_of(json.loads(first)) if place[0] != "self_sha256"]
    paths = [place for place in places if PATHS.intersection(place)]
    if paths and draw(st.booleans()):
        places = paths
    place = draw(st.sampled_from(places)) if places else ()
    if place:
        rewrite(path, place, draw(st.sampled_from(hostile_texts(here))))
    run_in(here, commands[command])


def link_attack(
    world: Path, root: Path, draw: Callable[[Any], Any], commands: dict[str, tuple[str, ...]] = COMMANDS
) -> None:
    """A file or a folder is a link to elsewhere; then one command."""
    here = prepare(world, root)
    command = draw(st.sampled_from(sorted(commands)))
    reads = [word for word in commands[command] if word in ("dataset", "run", "samples")]
    folder = here / draw(st.sampled_from(reads))
    names = [*sorted(folder.rglob("*")), folder / ".lock", folder / ".tmp", folder / "shards/old", folder / "out"]
    path = draw(st.sampled_from(names))
    targets = [path for path in sorted((here / "victim").rglob("*")) if path.is_dir() or path.is_file()]
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(draw(st.sampled_from([*targets, here / "victim", here / "victim/new"])))
    run_in(here, commands[command])


few = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
EXAMPLES = int(os.environ.get("LVAE_HOSTILE_EXAMPLES", "150"))  # 3000 take most of an hour
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(st.data())
def test_hostile_strings_lead_nowhere(
    world: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("attack")
    attack(world, root / "world", data.draw)
    shutil.rmtree(root)


@few
@given(st.data())
def test_links_lead_nowhere(world: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    root = tmp_path_factory.mktemp("attack")
    link_attack(world, root / "world", data.draw)
    shutil.rmtree(root)


@pytest.mark.slow
@many
@given(st.data(), st.booleans())
def test_many_hostile_strings_and_links(
    world: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, link: bool
) -> None:
    root = tmp_path_factory.mktemp("attack")
    (link_attack if link else attack)(world, root / "world", data.draw, MORE)
    shutil.rmtree(root)


@pytest.mark.parametrize(
    ("name", "place", "text"),
    [
        ("manifest.json", ("view", "name"), "../../victim"),
        ("manifest.json", ("splits", "train", None), "../../../victim/x"),
        ("manifest.json", ("splits", "train", "index", "path"), "../victim/manifest.json"),
        ("manifest.json", ("autoencoder", "weights_sha256"), "../../victim/kept"),
        ("plan.json", ("encoding", "autoencoder", "weights_sha256"), "../../victim/kept"),
    ],
)
@pytest.mark.parametrize("command", ["encode", "shard", "verify", "clean", "inspect", "train", "decode", "merge"])
def test_a_name_that_leads_out_is_refused_in_one_line(
    world: Path, tmp_path: Path, name: str, place: tuple[Any, ...], text: str, command: str
) -> None:
    here = prepare(world, tmp_path / "world")
    if name == "plan.json" and command in ("train", "decode", "inspect"):
        pytest.skip("reads no plan")
    rewrite(here / "dataset" / name, place, text)
    done = run_in(here, COMMANDS[command])
    assert done.exit_code == 1
    assert "must be" in done.stderr + done.stdout
    if command != "verify":
        assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("lvae: ")


def test_rows_that_lead_out_of_their_source_are_not_read(world: Path, tmp_path: Path) -> None:
    from lvae.manifests.errors import LvaeError
    from lvae.manifests.parts.plan import read_plan
    from lvae.manifests.parts.rows import RowReader
    from lvae.manifests.storage.folder import Folder

    here = prepare(world, tmp_path / "world")
    path = here / "dataset/rows/000000.parquet"
    for column in ("key", "container", "member"):
        for text in ("../victim/kept.npy", str(here / "victim/kept.npy"), "http://169.254.169.254/x", "a\0b"):
            shutil.copy(here / "whole/rows/000000.parquet", path)
            table = pq.read_table(path)
            number = table.schema.get_field_index(column)
            changed = table.set_column(number, table.schema.field(number), pa.array([text] * len(table)))
            pq.write_table(changed, path, row_group_size=3)
            folder = Folder(here / "dataset")
            plan = read_plan(folder)
            assert plan is not None
            with pytest.raises(LvaeError, match="leads out of its source"):
                RowReader(folder, plan.listing).part(0)


def test_encoding_into_a_strangers_dataset_deletes_nothing(scenes: Path, tmp_path: Path) -> None:
    """As it was found: the manifest's view is elsewhere, its hash is right, and shards are missing."""
    arguments = ("encode", scenes, tmp_path / "a/dataset", "--autoencoder", "pixels", "--size", "16", "--workers", "1")
    lvae(*arguments, "--limit", "8")
    victim = tmp_path / "a/victim"
    victim.mkdir()
    (victim / "precious").write_bytes(b"x")
    rewrite(tmp_path / "a/dataset/manifest.json", ("view", "name"), "../../victim")
    for more in ((), ("--append",)):
        *_, said = lvae(*arguments, "--limit", "8", *more, check=1).stderr.splitlines()
        assert said.startswith("lvae: ") and "view.name: must be" in said
        assert (victim / "precious").read_bytes() == b"x"
