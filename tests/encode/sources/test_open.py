"""What a SOURCE is, and readers of every kind of it; noise."""

import json
import os
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lvae.encode.images import open_image
from lvae.encode.sources.open import open_reader, open_source
from lvae.manifests.errors import LvaeError
from tests.encode.source_examples import listed, refused
from tests.encode.sources.plain_files import fill, png, samples, tarred, zipped

SHARED = Path(os.environ.get("LVAE_SHARED_DATA", Path(__file__).parents[3] / "../shared/data"))


@pytest.mark.parametrize("kind", ["folder", "tar", "stored", "deflated"])
def test_many_threads_and_another_process_read_alike(tmp_path: Path, kind: str) -> None:
    members = {f"{n:03}.png": png(n) for n in range(60)}
    if kind == "folder":
        location = fill(tmp_path / "x", members)
    elif kind == "tar":
        location = tmp_path / "x"
        location.mkdir()
        for number in range(20):  # more than stay open
            names = list(members)[3 * number : 3 * number + 3]
            tarred(location / f"{number:02}.tar", {name: members[name] for name in names})
    else:
        method = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
        location = zipped(tmp_path / "x.zip", members, method)
    source, rows = listed(location)
    reader = pickle.loads(pickle.dumps(open_reader(source.kind, source.location)))  # noqa: S301  our own
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(reader.read, rows * 5))
    assert found == list(members.values()) * 5
    reader.close()
    reader.close()


def test_a_reader_takes_what_the_user_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tarred(tmp_path / "t-0.tar", samples(0, 2))
    tarred(tmp_path / "t-1.tar", samples(2, 2))
    zipped(tmp_path / "a.zip", {"a.png": png(9)})
    fill(tmp_path / "f", ["a.png"])
    monkeypatch.chdir(tmp_path)
    for typed in ("t-{0..1}.tar", "t-*.tar", "t-0.tar", "a.zip", "f", "./f/", "synthetic:3?size=8"):
        source, rows = listed(typed)
        again = open_source(source.location)
        assert list(again.rows()) == rows
        for location in (typed, source.location):
            reader = open_reader(source.kind, location)
            assert open_image(reader.read(rows[-1])).mode == "RGB"
            reader.close()


def test_storage_faults_stay_what_they_are(tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tar", samples(0, 1))
    source, rows = listed(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        open_reader(source.kind, source.location).read(rows[0])


def test_a_tar_that_became_shorter_is_not_an_image_to_reject(tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tar", samples(0, 1))
    source, rows = listed(path)
    path.write_bytes(path.read_bytes()[:520])
    with pytest.raises(LvaeError, match="shorter than when it was listed"):
        open_reader(source.kind, source.location).read(rows[0])


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(LvaeError, match="none of folder"):
        open_reader("hdf5", "x")


def test_noise_is_a_function_of_seed_and_index() -> None:
    source, rows = listed("synthetic:12?size=33&seed=5&classes=4")
    assert (source.kind, source.classes) == ("synthetic", ("0", "1", "2", "3"))
    assert [row.label for row in rows] == [0, 1, 2, 3] * 3
    reader, other = (open_reader("synthetic", f"synthetic:{n}?size=33&seed={s}") for n, s in ((99, 5), (12, 6)))
    pictures = [reader.read(row) for row in rows]
    assert len(set(pictures)) == 12
    assert pictures != [other.read(row) for row in rows]
    assert all(len(data) == row.length for data, row in zip(pictures, rows, strict=True))
    image = open_image(pictures[0])
    assert image.size == (33, 33)
    assert open_image(open_reader("synthetic", "synthetic:1").read(rows[0])).size == (256, 256)


@pytest.mark.parametrize("rest", ["", "0", "-1", "5?", "5?size=0", "5?what=1", "5?size=8&size=9", "5&size=8", "1e3"])
def test_noise_of_another_grammar_is_refused(rest: str) -> None:
    said = refused(f"synthetic:{rest}")
    assert "synthetic:1000" in said or "pixels" in said


# What the photographs and oddities of the workshop say


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared photographs")
def test_the_shared_photographs_are_found() -> None:
    source, rows = listed(SHARED / "photos")
    assert len(rows) == 1134
    assert source.classes is not None
    assert len(source.classes) == 12
    assert source.counts == {}
    source, rows = listed(SHARED / "photos64")
    assert len(rows) == 4857
    assert source.classes == tuple((SHARED / "photos64/classes.txt").read_text().split())
    assert all(source.classes[row.label].replace("_", "") in row.member.replace("_", "") for row in rows)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared oddities")
def test_the_shared_oddities_are_listed_or_counted() -> None:
    source, rows = listed(SHARED / "oddities")
    assert source.counts == {"hidden files": 1, "not images": 1, "unlabelled": 38}
    assert {row.key for row in rows} == set(json.loads((SHARED / "oddities/expected.json").read_text())) - {
        "._resource_fork.jpg"
    }
    assert [row.label for row in rows if row.key.startswith("deep/")] == [0]
