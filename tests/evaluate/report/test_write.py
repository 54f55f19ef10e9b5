"""`lvae report`: one page that asks for nothing, says everything, and is quick the second time."""

import base64
import io
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from lvae.cli import main
from lvae.evaluate.figures.drawing import png
from lvae.manifests.dataset import Dataset
from lvae.manifests.storage.folder import Folder
from tests.evaluate import run_examples
from tests.evaluate.browser import browser, look
from tests.evaluate.run_examples import model_config

HOSTILE = ('<script>alert("1")</script>', "dog & cat", "猫")
SMALL = ("-n", "16", "--repeats", "2", "--batch", "16", "--device", "cpu")
SECTIONS = (
    "trained",
    "curves",
    "samples",
    "guidance",
    "manipulations",
    "neighbours",
    "reconstructions",
    "scores",
    "throughput",
    "provenance",
)


def lvae(*arguments: str | Path, check: int = 0) -> Result:
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == check, done.output
    return done


class Parsed(HTMLParser):
    """A page taken apart with the standard library: links, pictures, anchors, commands, text by section."""

    VOID = ("meta", "link", "img", "line", "circle", "rect", "polyline", "br")

    def __init__(self, page: Path):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.anchors: list[str] = []
        self.svg_ids: list[str] = []
        self.svg_links: list[str] = []
        self.commands: list[str] = []
        self.text: dict[str, str] = {}
        self.style = ""
        self._command = False
        self.feed(page.read_text())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        assert not [name for name in found if name.startswith("on")]
        if tag == "svg" or "svg" in self.open:
            self.svg_ids += [str(value) for name, value in attrs if name == "id"]
            self.svg_links += [str(value) for name, value in attrs if name in ("href", "src", "xlink:href")]
            self.open += [] if tag in self.VOID else [tag]
            return
        assert "style" not in found
        self.links += [str(value) for name, value in attrs if name in ("href", "src", "srcset", "xlink:href", "action")]
        if tag == "img":
            self.pictures.append(found)
        if "id" in found:
            self.anchors.append(str(found["id"]))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "code" and found.get("class") == "command":
            self._command = True
            self.commands.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag
        if tag == "code":
            self._command = False

    def handle_data(self, data: str) -> None:
        if self._command:
            self.commands[-1] += data
        if self.open and self.open[-1] == "style":
            self.style += data
        elif self.anchors:
            self.text[self.anchors[-1]] = self.text.get(self.anchors[-1], "") + data + " "


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return run_examples.dataset(tmp_path_factory.mktemp("data") / "dataset", classes=HOSTILE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Path:
    run = run_examples.run(tmp_path_factory.mktemp("run") / "run", data)
    lines = [
        {
            "step": step,
            "images": 8 * step,
            "loss_nats": 50.0 / step,
            "reconstruction_nats": 40.0 / step,
            "rate_nats": 10.0 / step,
            "rate_per_group_nats": [1.0, 2.0, 0.5],
            "gradient_norm": 3.0 + step,
            "learning_rate": 1e-3,
            "skipped_updates": 1,
            "spectral": None,
            "images_per_second": 100.0 + step,
            "data_wait_share": 0.25,
        }
        for step in range(1, 8)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step in (1, 2, 3, 9):  # the last one is from before a run was taken up again at an earlier checkpoint
        Folder(run).write(f"previews/step-{step:08d}.png", png(Image.new("RGB", (40, 20), (step, 0, 0))))
    return run


@pytest.fixture(scope="module")
def page(run: Path, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "page.html"
    scores = out.with_name("fid.json")
    scores.write_text(
        json.dumps({"fid": 12.25, "sfid": None, "verdicts": {"fid": "better"}, "warnings": ["16 rows are few"]})
    )
    lvae("report", run, out, "--dataset", data.folder, "--scores", scores, *SMALL)
    return out


def test_nothing_outside_of_the_page_is_asked_for(page: Path) -> None:
    found = Parsed(page)
    assert all(re.match(r"data:|#", link) for link in found.links)
    assert {link[1:] for link in found.links if link.startswith("#")} == set(found.anchors) == set(SECTIONS)
    assert "script" not in found.tags and "iframe" not in found.tags
    assert "url(" not in found.style and "@import" not in found.style
    assert "default-src 'none'" in page.read_text()


def test_names_inside_of_a_chart_are_its_own(page: Path) -> None:
    found = Parsed(page)
    assert len(found.svg_ids) == len(set(found.svg_ids)) and not set(found.svg_ids) & set(found.anchors)
    links = {link for link in found.svg_links if not link.startswith("data:")}
    assert links <= {f"#{one}" for one in found.svg_ids}


def test_every_picture_is_in_the_page_and_says_what_it_shows(page: Path) -> None:
    found = Parsed(page)
    assert len(found.pictures) > 100
    for picture in found.pictures:
        data = base64.b64decode(str(picture["src"]).removeprefix("data:image/png;base64,"), validate=True)
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            assert str(opened.width) == picture["width"]
        assert picture["alt"]
    assert page.read_text().count('role="img" aria-label="') == found.tags.count("svg") >= 10


def test_the_page_says_what_was_trained_on_what_and_from_which_bytes(run: Path, page: Path, data: Dataset) -> None:
    text = Parsed(page).text
    assert "144 of 3×4×4" in text["trained"]
    assert HOSTILE[0] in text["trained"] and HOSTILE[0] not in page.read_text()
    assert "1 update skipped" in text["curves"]
    for number in (1, 2, 3):
        assert f"update {number}" in text["samples"]
    assert "update 9" not in text["samples"]
    assert "median of the log" in text["throughput"] and "104.0 latents a second" in text["throughput"]
    assert data.manifest.id in text["provenance"]
    checksums = json.loads(next(run.rglob("checksums.json")).read_text())
    assert checksums["files"]["ema.safetensors"]["sha256"] in text["provenance"]
    assert (
        "16 samples a setting, mean and standard deviation over 2 seeds, against 144 training latents" in text["scores"]
    )
    assert "fid: better" in text["scores"] and "kernel distance between latents" in text["scores"]
    for row in ("no guidance", "means 1.5, variances 3", "real against real", "linear baseline", "noise"):
        assert row in text["scores"]
    assert "12.2" in text["scores"] and "not available" in text["scores"] and "16 rows are few" in text["scores"]


def test_every_command_of_the_page_is_one_that_lvae_takes(page: Path) -> None:
    commands = Parsed(page).commands
    assert len(commands) >= 10
    for command in commands:
        program, name, *arguments = shlex.split(command)
        assert program == "lvae"
        with main.commands[name].make_context(name, arguments) as context:
            assert isinstance(context, click.Context)


def test_a_second_report_makes_nothing_anew_and_is_the_same(
    run: Path, page: Path, data: Dataset, tmp_path: Path
) -> None:
    kept = {path: path.stat().st_mtime_ns for path in (run / "report").rglob("*") if path.is_file()}
    scores = page.with_name("fid.json")
    lvae("report", run, tmp_path / "again.html", "--dataset", data.folder, "--scores", scores, *SMALL)
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()
    assert {path: path.stat().st_mtime_ns for path in (run / "report").rglob("*") if path.is_file()} == kept
    damaged = next((run / "report").rglob("neighbours.json"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    lvae("report", run, tmp_path / "again.html", "--dataset", data.folder, "--scores", scores, *SMALL)
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_without_the_dataset_its_sections_say_how_to_get_them(data: Dataset, tmp_path: Path) -> None:
    run = run_examples.run(tmp_path / "run", data, model_config(classes=0))
    done = lvae("report", run, "-n", "12", "--repeats", "1", "--device", "cpu")
    assert "--dataset DATASET adds" in done.stdout
    found = Parsed(run / "report.html")
    for section in ("manipulations", "neighbours", "reconstructions", "scores"):
        assert "--dataset DATASET" in found.text[section]
    assert "metrics.jsonl, holds nothing" in found.text["curves"]
    assert set(SECTIONS) == set(found.anchors)


def test_another_dataset_and_what_is_no_run_are_refused(run: Path, tmp_path: Path) -> None:
    other = run_examples.dataset(tmp_path / "other", seed=5)
    done = lvae("report", run, tmp_path / "p.html", "--dataset", other.folder, *SMALL, check=1)
    assert "is not what" in done.stderr and "was trained on" in done.stderr
    assert "not a run" in lvae("report", tmp_path, *SMALL, check=1).stderr
    done = lvae("report", run, tmp_path / "p.html", "--scores", tmp_path / "none.json", *SMALL, check=1)
    assert "no such file" in done.stderr


IMAGES = "JSON.stringify([...document.images].map(image => [image.complete, image.naturalWidth]))"
WIDTHS = "JSON.stringify([document.documentElement.scrollWidth, window.innerWidth])"
COLOUR = "getComputedStyle(document.body).backgroundColor"


@pytest.mark.skipif(browser() is None, reason="needs a Chromium")
@pytest.mark.parametrize(("dark", "width"), [(False, 1200), (True, 1200), (False, 390)])
def test_a_browser_draws_every_picture_and_complains_of_nothing(page: Path, dark: bool, width: int) -> None:
    seen = look(page, (IMAGES, WIDTHS, COLOUR), dark, width)
    assert seen.messages == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [page.resolve().as_uri()]
    images, (inside, outside), colour = (*map(json.loads, seen.answers[:2]), seen.answers[2])
    assert len(images) > 100 and all(complete and natural > 0 for complete, natural in images)
    assert inside <= outside  # the page itself never scrolls sideways
    assert (max(map(int, re.findall(r"\d+", colour)[:3])) < 80) == dark


def test_several_runs_stand_beside_each_other(run: Path, data: Dataset, tmp_path: Path) -> None:
    other = run_examples.run(tmp_path / "other", data, model_config(classes=0), seed=1)
    options = ("--dataset", data.folder, "-n", "12", "--repeats", "2", "--device", "cpu")
    done = lvae("report", run, other, tmp_path / "both.html", *options)
    assert "2 runs beside each other" in done.stdout
    text = Parsed(tmp_path / "both.html").text
    for name in (run.name, "other"):
        assert name in text["words"] and name in text["runs"] and name in text["samples"]
    assert "real against real" in text["scores"] and "no guidance" in text["samples"]
    assert "Variety: the samples" in text["words"] and "Sharpness: the samples" in text["words"]
