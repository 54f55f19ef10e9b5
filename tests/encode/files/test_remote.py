"""The same sources behind URLs: the same rows and bytes, whatever goes wrong on the way, or an OSError."""

import io
import json
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lvae.encode.files import remote as sources_remote
from lvae.encode.sources import base
from lvae.encode.sources.base import read_bytes
from lvae.encode.sources.open import open_reader, open_source
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage import retry
from tests.encode.source_examples import Server, contents, listed, png, refused, serving

pytest.importorskip("aiohttp")
lmdb = pytest.importorskip("lmdb")
PICTURES = {f"{'cat' if number % 2 else 'dog é'}/{number:02}.png": png(number) for number in range(12)}
PLACES = (
    *("tree/", "a.zip", "a.tar", "shards/", "shards/s-{0..1}.tar", "shards/s-*.tar", "nested.tar", "lsun/"),
    *("tables/", "tables/t-*.parquet", "a.npz", "c.npz", "a.npy", "list.csv", "list.jsonl"),
)


def pack(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One source of every kind."""
    root = tmp_path_factory.mktemp("sources")
    for name, data in PICTURES.items():
        (root / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "tree" / name).write_bytes(data)
    (root / "tree/.hidden.png").write_bytes(png())
    (root / "tree/notes.txt").write_bytes(b"text")
    pack(root / "a.tar", PICTURES)
    with zipfile.ZipFile(root / "a.zip", "w") as archive:
        for number, (name, data) in enumerate(PICTURES.items()):
            archive.writestr(name, data, zipfile.ZIP_DEFLATED if number % 3 else zipfile.ZIP_STORED)
    (root / "shards").mkdir()
    for shard in range(2):
        members = {f"{n}.{end}": d for n in range(3) for end, d in (("png", png(n + 3 * shard)), ("cls", b"%d" % n))}
        pack(root / f"shards/s-{shard}.tar", members)
    inner = {}
    for name in ("n02", "n01"):
        pack(root / "inner", {f"{name}_{number}.JPEG": png(number) for number in range(3)})
        inner[f"{name}.tar"] = (root / "inner").read_bytes()
    (root / "inner").unlink()
    pack(root / "nested.tar", inner)
    with lmdb.open(str(root / "lsun"), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for number in range(40):
            transaction.put(f"{number:040x}".encode(), png(number, 40))
    (root / "tables").mkdir()
    for number in range(2):
        pictures = pa.array([{"bytes": png(n), "path": None} for n in range(number, 9 + number)])
        pq.write_table(pa.table({"image": pictures}), root / f"tables/t-{number}.parquet", row_group_size=4)
    array = np.random.default_rng(0).integers(0, 256, (9, 8, 6, 3), np.uint8)
    np.savez(root / "a.npz", array, np.arange(9))
    np.savez_compressed(root / "c.npz", array)
    np.save(root / "a.npy", array)
    (root / "list.csv").write_text("".join(f"tree/{name},{name[:3]}\n" for name in PICTURES))
    (root / "list.jsonl").write_text("".join(json.dumps({"path": f"tree/{name}"}) + "\n" for name in PICTURES))
    return root


@pytest.fixture
def server(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(retry, "DELAYS", (0.01, 0.02, 0.04))
    monkeypatch.setattr(base, "READ_DELAYS", (0.01, 0.02, 0.04))
    with serving(tree) as found:
        yield found


@pytest.fixture(scope="module")
def memory(tree: Path) -> str:
    fs = fsspec.filesystem("memory")
    for path in tree.rglob("*"):
        if path.is_file():
            fs.pipe_file(f"/remote/{path.relative_to(tree)}", path.read_bytes())
    return "memory://remote/"


@pytest.mark.parametrize("place", PLACES)
def test_a_source_behind_a_url_is_that_on_the_disk(tree: Path, memory: str, server: Server, place: str) -> None:
    here, rows = listed(tree / place)
    bytes_here = contents(tree / place)
    for url in (f"{memory}{place}", f"{server.url}/{place}", f"file://{tree}/{place}"):
        there, found = listed(url)
        assert found == rows
        assert (there.kind, there.classes, there.counts, there.warnings) == (
            *(here.kind, here.classes, here.counts, here.warnings),
        )
        assert contents(url) == bytes_here


@pytest.mark.parametrize("place", PLACES)
def test_requests_that_fail_now_and_then_change_nothing(tree: Path, server: Server, place: str) -> None:
    expected = contents(tree / place)
    server.fault = lambda times: {1: "503", 2: "drop", 3: "429"}.get(times, "")
    source = open_source(f"{server.url}/{place}")
    rows = list(source.rows())
    reader = open_reader(source.kind, source.location)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda row: read_bytes(row, reader), rows))
    reader.close()
    assert dict(zip((row.key for row in rows), found, strict=True)) == expected


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("fault", ["503", "drop"])
def test_an_outage_is_an_oserror_and_no_rejection(server: Server, place: str, fault: str) -> None:
    source, rows = listed(f"{server.url}/{place}")
    server.fault = lambda _: fault
    reader = open_reader(source.kind, source.location)
    with pytest.raises(OSError) as caught:
        read_bytes(rows[-1], reader)
    assert not isinstance(caught.value, FileNotFoundError)
    reader.close()
    with pytest.raises(OSError, match=r"503|disconnected|not complete|shorter"):  # which patience waits for
        listed(f"{server.url}/{place}")


def test_a_server_that_stalls_is_left_after_a_while(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    source, rows = listed(f"{server.url}/a.tar")
    monkeypatch.setattr(sources_remote, "REQUEST_SECONDS", 0.2)
    reader = open_reader(source.kind, source.location)
    server.fault = lambda times: "stall" if times < 3 else ""
    assert read_bytes(rows[0], reader) == next(iter(PICTURES.values()))
    server.fault = lambda _: "stall"
    with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        reader.read(rows[0])


def test_what_is_gone_is_not_waited_for(server: Server) -> None:
    source, rows = listed(f"{server.url}/tree/")
    before = len(server.requests)
    reader = open_reader(source.kind, source.location)
    gone = rows[0]._replace(key="cat/gone.png")
    with pytest.raises(FileNotFoundError):
        reader.read(gone)
    with pytest.raises(LvaeError, match="cannot be read any more"):
        read_bytes(gone, reader)
    assert len(server.requests) == before + 2
    assert "no such file" in refused(f"{server.url}/gone.tar")
    server.fault = lambda _: "403"
    assert "answers 403" in refused(f"{server.url}/a.tar")


def test_pictures_in_containers_are_read_in_place(server: Server) -> None:
    source, rows = listed(f"{server.url}/a.tar")
    server.requests.clear()
    assert open_reader(source.kind, source.location).read(rows[5]) == PICTURES[rows[5].key]
    first, length = rows[5].offset, rows[5].length
    assert server.requests == [("GET", "/a.tar", f"bytes={first}-{first + length - 1}")]


def test_a_server_without_ranges_is_enough_for_files_alone(server: Server) -> None:
    server.ranges = False
    assert len(contents(f"{server.url}/tree/")) == len(contents(f"{server.url}/list.csv")) == len(PICTURES)
    for place in ("a.tar", "a.zip", "a.npy"):
        said = refused(f"{server.url}/{place}")
        assert "no ranged requests" in said


def test_a_server_without_head_requests_is_asked_otherwise(server: Server) -> None:
    server.heads = False
    assert len(contents(f"{server.url}/tree/")) == len(contents(f"{server.url}/a.zip")) == len(PICTURES)


def test_queries_and_escapes_of_urls_are_kept(tree: Path, server: Server) -> None:
    shutil.copy(tree / "a.zip", tree / "größe 1%.zip")
    for name in ("a.zip?version=3", "gr%C3%B6%C3%9Fe%201%25.zip", "größe 1%25.zip"):
        assert contents(f"{server.url}/{name}").keys() == PICTURES.keys()
    (tree / "größe 1%.zip").unlink()


def test_a_file_that_changed_is_seen(tree: Path, memory: str, server: Server) -> None:
    fs = fsspec.filesystem("memory")
    for place in ("a.tar", "tree/", "list.csv"):
        before, _ = listed(f"{server.url}/{place}")
        changed = tree / ("a.tar" if place == "a.tar" else f"tree/{next(iter(PICTURES))}")
        changed.write_bytes(changed.read_bytes())
        after, _ = listed(f"{server.url}/{place}")
        assert before.seen.sum != after.seen.sum
    before, _ = listed(f"{memory}a.tar")
    fs.pipe_file("/remote/a.tar", (tree / "a.tar").read_bytes())
    assert before.seen.sum != listed(f"{memory}a.tar")[0].seen.sum


def test_a_container_that_became_shorter_is_said(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    pack(tmp_path / "a.tar", PICTURES)
    data = (tmp_path / "a.tar").read_bytes()
    fs.pipe_file("/shrinking/a.tar", data)
    source, rows = listed("memory://shrinking/a.tar")
    fs.pipe_file("/shrinking/a.tar", data[: rows[3].offset + 9])
    with pytest.raises(LvaeError, match="shorter than when it was listed"):
        open_reader(source.kind, source.location).read(rows[3])


@pytest.mark.parametrize("place", ["tree/", "a.tar", "a.zip", "c.npz", "tables/"])
def test_a_reader_of_a_url_goes_to_threads_and_other_processes(server: Server, place: str) -> None:
    expected = list(contents(f"{server.url}/{place}").values())
    source, rows = listed(f"{server.url}/{place}")
    reader = pickle.loads(pickle.dumps(open_reader(source.kind, source.location)))  # noqa: S301  our own
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(reader.read, rows * 2)) == expected * 2
    reader.close()


def test_no_secret_is_written_down(memory: str, tmp_path: Path) -> None:
    for url in ("https://me:pass@host/a.zip", "https://b.s3.amazonaws.com/a.zip?X-Amz-Signature=0a", "s3://k:s@b/a"):
        said = refused(url)
        assert "would be written down" in said
        assert "pass" not in said.replace("with a password", "")
        assert "0a" not in said
    (tmp_path / "a.txt").write_text("https://me:pass@host/a.png\n")
    assert "would be written down" in refused(tmp_path / "a.txt")
    assert "chain of URLs" in refused("zip://a.png::https://host/a.zip")


def test_a_list_from_elsewhere_names_no_files_of_this_machine() -> None:
    fs = fsspec.filesystem("memory")
    for number, path in enumerate(["/etc/hostname", "file:///etc/hostname", "../../etc/hostname"]):
        fs.pipe_file(f"/hostile/{number}.txt", path.encode())
        assert "may only name URLs" in refused(f"memory://hostile/{number}.txt")


def test_unknown_protocols_and_missing_packages_are_one_line() -> None:
    assert "Protocol not known: nowhere" in refused("nowhere://bucket/images")
    assert "no such file" in refused("memory://nothing/here.zip")
    assert "no such file" in refused("memory://nothing/here/")
    assert "last component alone" in refused("memory://a/*/b-*.tar")
