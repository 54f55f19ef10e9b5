"""An object store as it answers: moto's S3 server on this machine."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvae.encode.files import remote as sources_remote
from lvae.encode.sources.open import open_reader
from lvae.manifests.storage import retry
from tests.encode.source_examples import contents, listed, png, refused

pytestmark = pytest.mark.slow  # its packages are heavy

PICTURES = {f"{'cat' if number % 2 else 'dog é'}/{number:02}.png": png(number) for number in range(12)}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    import boto3  # type: ignore[import-not-found]

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setattr(retry, "DELAYS", (0.01,))
    sources_remote._filesystems.clear()
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket="pictures")
    yield "s3://pictures"
    server.stop()


def put(folder: Path, bucket: str) -> None:
    import s3fs  # type: ignore[import-not-found]

    fs = s3fs.S3FileSystem(skip_instance_cache=True)
    for path in folder.rglob("*"):
        if path.is_file():
            fs.pipe_file(f"{bucket}/{path.relative_to(folder)}", path.read_bytes())
    fs.touch(f"{bucket}/tree/")  # how consoles make a folder


def test_a_bucket_is_read_like_a_folder(tmp_path: Path, bucket: str) -> None:
    import zipfile

    for name, data in PICTURES.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, (name, data) in enumerate(PICTURES.items()):
            archive.writestr(name, data, zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED)
    (tmp_path / "list.txt").write_text("".join(f"tree/{name}\n" for name in PICTURES))
    put(tmp_path, bucket)
    for place in ("tree", "a.zip", "list.txt"):
        here, rows = listed(tmp_path / place)
        there, found = listed(f"{bucket}/{place}")
        assert (there.kind, there.classes, found) == (here.kind, here.classes, rows)
        assert contents(f"{bucket}/{place}") == contents(tmp_path / place)
    reader = open_reader(there.kind, there.location)
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).rm(f"{bucket}/tree/{next(iter(PICTURES))}")
    gone = next(row for row in found if row.key.endswith(next(iter(PICTURES))))
    with pytest.raises(FileNotFoundError):
        reader.read(gone)
    assert "no such file or folder" in refused(f"{bucket}/nothing.zip")
    assert "cannot be" in refused("s3://no-such-bucket-at-all/x/")
