"""Wrong arguments of every command: one line that names what was given, said before anything large is imported."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from lvae.cli import Group, main
from lvae.commands.places import Place
from lvae.manifests.storage.places.kinds import Kind, kind_of
from tests.conftest import lvae
from tests.evaluate import run_examples
from tests.manifests.dataset_examples import encode

GIVEN = {
    "missing": "no such file or folder",
    "photos": "is a folder of images",
    "dataset": "is a dataset",
    "run": "is a run",
    "empty": "is an empty folder",
    "weights.safetensors": "is a file of weights",
    "picture.png": "is an image",
    "notes.txt": "is a table or list",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    root = tmp_path_factory.mktemp("errors")
    run_examples.run(root / "run", run_examples.dataset(root / "dataset"))
    (root / "photos").mkdir()
    (root / "empty").mkdir()
    picture = next(scenes.rglob("*.png"))
    shutil.copy(picture, root / "photos" / "1.png")
    shutil.copy(picture, root / "picture.png")
    for name in ("weights.safetensors", "notes.txt"):
        (root / name).write_text("something")
    return root


def wrong_commands(world: Path) -> list[tuple[str, list[str]]]:
    """Every argument that names a place, with everything that it cannot be: (what was given, words)."""
    found = []
    groups: list[tuple[list[str], click.Command]] = [([name], command) for name, command in main.commands.items()]
    while groups:
        words, command = groups.pop()
        if isinstance(command, click.Group):
            groups += [([*words, name], one) for name, one in command.commands.items()]
            continue
        arguments = [one for one in command.params if isinstance(one, click.Argument)]
        for at, argument in enumerate(arguments):
            if not isinstance(argument.type, Place):
                continue
            for given in GIVEN:
                if kind_of(world / given) not in argument.type.wanted.kinds:
                    before = [_fitting(one) for one in arguments[:at]]
                    after = ["new.png" for one in arguments[at + 1 :] if one.required]
                    found.append((given, [*words, *before, given, *after]))
    return found


def _fitting(argument: click.Parameter) -> str:
    if isinstance(argument.type, click.Choice):
        return str(next(iter(argument.type.choices)))
    kinds = argument.type.wanted.kinds if isinstance(argument.type, Place) else {Kind.MISSING}
    return next(
        (
            name
            for name, kind in (("dataset", Kind.DATASET), ("run", Kind.RUN), ("photos", Kind.IMAGES))
            if kind in kinds
        ),
        "new",
    )


def test_every_wrong_place_is_named_in_one_line(world: Path) -> None:
    wrong = wrong_commands(world)
    assert len(wrong) > 100
    for given, words in wrong:
        done = lvae(*words, check=1, cwd=world)
        assert done.stderr.count("\n") == 1 and done.stderr.startswith(f"lvae: {given}: {GIVEN[given]}"), done.stderr
        assert done.stdout == ""


SCRIPT = """
import json, sys
from click.testing import CliRunner
from lvae.cli import Group, main
for words in json.load(sys.stdin):
    CliRunner().invoke(main, words, prog_name="lvae")
    large = sorted({"torch", "apache_beam", "PIL", "matplotlib"} & sys.modules.keys())
    if large:
        sys.exit(f"{words} imports {large}")
"""


WRONG_VALUES = """
train dataset new --set bogus=1
train dataset new --set width
train dataset new --set width=wide
train dataset new --set classes=7
train dataset new --preset x
train dataset new --preset church256-f8
train dataset run --override bogus=3
train dataset run --set bogus=1
sample run new --labels zebra
sample run new --labels 7
sample run new --step first
sample run new --temperature hot
sample run new --guidance-mean 1,2,3
sample run new --guidance paper --guidance-mean 1
encode photos new --normalization x
encode photos new --split val
encode photos new --without-keys missing
encode photos new --split val=110%
encode photos new --split train=5
encode photos new --autoencoder klf8
encode photos new --max-rejected many
encode photos new --devices a,b
encode photos new --device gpu
encode photos new --weights missing.safetensors
encode photos new --labels missing.csv
shard dataset --normalization x
shard dataset --split val=x
shard dataset --only-classes zebra
shard dataset --erase
merge dataset dataset new --without-classes zebra
sample run new --ema 0.5
sample run new --step 999
score --samples dataset --reference dataset --metrics fid
score --samples dataset --metrics nonsense
score --samples dataset --reference dataset --features missing.pt
score --samples dataset --reference dataset --split nowhere
features photos new.npz --features missing.pt
sweep run new --means a
sweep run new --labels zebra
sweep run new --temperatures -1
neighbours run dataset new.png --temperature hot
neighbours dataset dataset new.png --indices x
decode dataset new --indices 3-99999
decode dataset new --split nowhere
decode dataset new --weights missing.pt
traverse run dataset new.png --values a
traverse run new.png --channels 0
traverse run new.png
traverse run missing.png new.png --channels 0:0,0:1
outpaint run dataset new.png --guidance-mean 1,2,3
interpolate run dataset new.png --indices x
interpolate run picture.png new.png
depths run photos new.png
depths run picture.png new.png --label zebra
import weights.safetensors new --config missing.json
autoencoder fit photos new --autoencoder klf8
autoencoder fit photos new --shorter-side wide
autoencoder fit photos new --validation most
autoencoder fit photos new --without-keys nobody.txt
autoencoder fit photos new --perceptual efficientnet
autoencoder score default photos --held-out most
study table1 photos new --features missing.pt
"""

OF_NO_USE = """
encode photos new --missing-ok
encode photos new --images-per-second 3
encode photos new --device cpu --devices 0
shard dataset --missing-ok
inspect dataset --images 3
inspect run --seed 3
inspect run --split val
sample run new --parameters raw --ema 0.99
sample run new --low-resolution dataset
score --samples dataset --reference dataset --mode clean
score --samples dataset --reference dataset --size 64
score --samples dataset --around dataset
features photos new.npz --features weights.safetensors --crop lsun
features photos new.npz --features weights.safetensors --split val
features photos new.npz --features weights.safetensors --seed 3
features photos new.npz --features efficientnet-lite0 --mode clean
features dataset new.npz --features weights.safetensors --size 64
sweep run new --num 30
neighbours run dataset new.png --indices 3
neighbours dataset dataset new.png --labels 1
neighbours dataset dataset new.png --indices 0-3 -n 2
traverse run dataset new.png --indices 1
traverse run dataset new.png --channels 0:0,0:1
traverse run new.png --channels 0:0,0:1 --images 3
traverse run new.png --channels 0:0,0:1 --split val
traverse run new.png --channels 0:0,0:1 --values 1,2 --steps 3
interpolate run dataset new.png --label 1
outpaint run picture.png new.png --split val
outpaint run dataset new.png --left 0 --right 0
depths run dataset new.png --beside run dataset
train dataset new --preview none --preview-every 5
train dataset new --patience 3
train dataset run --preview none --preview-every 5
train dataset run --patience 3
train dataset run --init drawn-scenes
autoencoder fit photos new --perceptual-weight 2
autoencoder fit photos new --discriminator-layers 2
autoencoder fit photos new --sharpen-after 2
autoencoder fit photos new --kl-weight 2
autoencoder score weights.safetensors photos --weights weights.safetensors
"""


def test_no_option_is_passed_over_without_a_word(world: Path) -> None:
    wrong = [line.split() for line in OF_NO_USE.strip().splitlines()]
    refuse_without_torch(wrong, world)
    for words in wrong:
        done = lvae(*words, check=None, cwd=world)
        assert done.returncode in (1, 2) and done.stderr.count("\n") == 1, (words, done.stderr)
        assert any(word in done.stderr for word in words if word.startswith("-")), (words, done.stderr)
        assert not (world / "new").exists(), words


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("train dataset new --cache elsewhere --set width=0", "--cache"),
        ("train dataset new --validate-every 5 --set width=0", "--validate-every"),
        ("train dataset run --cache elsewhere --override width=0", "--cache"),
        ("train dataset run --validate-every 5 --override width=0", "--validate-every"),
        ("train dataset new --device cpu --reduce-precision bfloat16 --micro-batch 7", "--reduce-precision"),
        ("import weights.safetensors new --device cpu --config nothing.json", "--device"),
    ],
)
def test_what_scripts_give_everywhere_is_noted_only(words: str, option: str, world: Path) -> None:
    *notes, refusal = lvae(*words.split(), check=1, cwd=world).stderr.splitlines()
    assert any(note.startswith(f"{option}: ") and "without effect here" in note for note in notes), notes
    assert option not in refusal


def test_no_wrong_value_waits_for_torch(world: Path) -> None:
    wrong = [line.split() for line in WRONG_VALUES.strip().splitlines()]
    refuse_without_torch(wrong, world)
    for words in wrong:
        said = lvae(*words, check=1, cwd=world).stderr
        assert said.count("\n") == 1 and said.startswith("lvae: "), said


def test_no_wrong_argument_waits_for_torch(world: Path) -> None:
    wrong = [words for _, words in wrong_commands(world)]
    wrong += [["encode", "photos", "new", "more"], ["nonsense"], ["encode"], ["encode", "photos", "run"]]
    wrong += [["train", "dataset", "photos"], ["sample", "run", "dataset"], ["decode", "dataset", "x.jpg"]]
    wrong += [["report", "run", "rep.pdf"], ["plot", "run", "picture.png"], ["sweep", "run", "photos"]]
    refuse_without_torch(wrong, world)


def refuse_without_torch(wrong: list[list[str]], world: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(wrong), text=True, cwd=world, capture_output=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("encode photos new --size abc", "'abc' is not a whole number."),
        ("train dataset new --steps 0", "must be at least 1, not 0."),
        ("train dataset new --minutes nan", "'nan' is not a number."),
        ("neighbours run dataset new.png -k 51", "must be 1 to 50, not 51."),
        ("autoencoder fit photos new --ema 2", "must be 0 to 1, not 2.0."),
    ],
)
def test_wrong_numbers_are_told_in_plain_words(words: str, said: str, world: Path) -> None:
    assert said in lvae(*words.split(), check=2, cwd=world).stderr


@pytest.mark.parametrize(
    "words",
    [["encode", "photos", "new", "more"], ["nonsense"], ["encode"], ["encode", "photos", "new", "--crop", "round"]],
)
def test_wrong_usage_is_one_line_and_2(words: list[str], world: Path) -> None:
    done = lvae(*words, check=2, cwd=world)
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("lvae: ")


@pytest.mark.parametrize("name", ["--parameters", "--weights"])
def test_both_names_of_the_weights_of_a_model_are_known(name: str, world: Path) -> None:
    assert "'ema', 'raw'" in lvae("sample", "run", "new", name, "mean", check=2, cwd=world).stderr


def test_swapped_words_and_near_names_are_told(world: Path) -> None:
    assert "Write 'lvae train DATASET RUN'" in lvae("train", "run", "dataset", check=1, cwd=world).stderr
    assert "Did you mean dataset?" in lvae("train", "datset", "new", check=1, cwd=world).stderr
    assert "Did you mean drawn-scenes?" in lvae("sample", "drawn-scene", "new", check=1, cwd=world).stderr
    assert (
        "Did you mean learning_rate?"
        in lvae("train", "dataset", "new", "--set", "lerning_rate=1", check=1, cwd=world).stderr
    )
    assert "Did you mean" not in lvae("train", "dataset", "new", "--set", "nonsense=1", check=1, cwd=world).stderr
    assert "there is no command 'encod'. Did you mean encode?" in lvae("encod", "photos", check=2, cwd=world).stderr
    assert "no option --sede. Did you mean --seed?" in lvae("scenes", "new", "--sede", "1", check=2, cwd=world).stderr
    assert "lvae encode photos DATASET" in lvae("train", "photos", "new", check=1, cwd=world).stderr


def test_a_command_ends_with_its_duration_and_the_next_one(tmp_path: Path) -> None:
    done = lvae("scenes", tmp_path / "scenes", "--count", "8", "--size", "8")
    assert done.stderr.splitlines()[-1].endswith(f"s. Next: lvae encode {tmp_path / 'scenes'} DATASET --size 8")


@pytest.mark.parametrize(
    "words",
    [
        ("--conditional", "--set", "classes=2"),
        ("--steps", "5", "--set", "updates=6"),
        ("--batch", "8", "--set", "batch=4"),
        ("--accumulate", "2", "--set", "accumulate=4"),
        ("--seed", "1", "--set", "seed=2"),
        ("--precision", "float32", "--set", "precision=bfloat16"),
    ],
)
def test_an_option_and_a_setting_of_the_same_do_not_differ(words: tuple[str, ...], world: Path) -> None:
    done = lvae("train", "dataset", "new", *words, check=1, cwd=world)
    assert "both set the same. Leave one of them out." in done.stderr and not (world / "new").exists()


def test_it_is_the_dataset_named_twice_that_is_told(world: Path) -> None:
    assert "dataset: is named twice" in lvae("merge", "dataset", "dataset", "both", check=1, cwd=world).stderr


def test_a_dataset_that_was_only_begun_is_called_unfinished(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "000000.parquet").touch()
    assert "is not finished" in lvae("inspect", tmp_path, check=1).stderr


@pytest.mark.parametrize("words", [("decode", "begun", "out.png"), ("shard", "begun"), ("merge", "begun", "both")])
def test_what_is_unfinished_is_not_always_an_encoding(words: tuple[str, ...], tmp_path: Path) -> None:
    encode(tmp_path / "begun")
    done = lvae(*words, check=1, cwd=tmp_path)
    assert "is not finished. Run the command that made it again: lvae encode, shard --out, merge" in done.stderr


@pytest.mark.parametrize(("name", "resumes"), [("encode", True), ("watch", False)])
def test_only_what_resumes_says_so_when_it_is_interrupted(name: str, resumes: bool) -> None:
    @click.command(name)
    def interrupted() -> None:
        raise KeyboardInterrupt

    done = CliRunner().invoke(Group("lvae", commands=[interrupted]), [name])
    assert done.exit_code == 130
    assert done.stderr == f"lvae: interrupted{'; the same command resumes from here' if resumes else ''}\n"
