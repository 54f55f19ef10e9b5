"""`lvae inspect DATASET --rows`: which image each latent was made from."""

import json

import pytest

from lvae.manifests.dataset import Dataset
from tests.conftest import lvae
from tests.evaluate import run_examples


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return run_examples.dataset(tmp_path_factory.mktemp("rows") / "dataset")


def listed(data: Dataset, *options: str) -> list[dict[str, object]]:
    done = lvae("inspect", str(data.folder), "--rows", "--json", *options)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_latent_has_a_line_in_the_order_of_the_source(data: Dataset) -> None:
    lines = listed(data)
    assert len(lines) == len(data) == 144
    assert [line["row"] for line in lines] == sorted(data.rows.tolist())
    for line in lines[::20]:
        at = line["position"]
        assert isinstance(at, int)
        assert (line["key"], line["label"]) == (data.keys[at], data.labels[at])
        assert line["mirrored"] == data.mirrored[at]


def test_lines_of_one_class(data: Dataset) -> None:
    assert data.classes is not None
    name = data.classes[1]
    assert {line["class"] for line in listed(data, "--class", name)} == {name}
    assert listed(data, "--class", "1") == listed(data, "--class", name)
    text = lvae("inspect", str(data.folder), "--rows", "--class", name).stdout
    assert len(text.splitlines()) == (data.labels == 1).sum()
    assert (
        f"Its classes: {data.classes[0]}" in lvae("inspect", str(data.folder), "--rows", "--class", "x", check=1).stderr
    )
    assert "Give --rows" in lvae("inspect", str(data.folder), "--class", name, check=1).stderr
