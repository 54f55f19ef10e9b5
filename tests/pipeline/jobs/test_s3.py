"""A dataset on an object store: moto's S3 server on this machine, spoken to over HTTP by every process."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lvae.encode.scenes.make import write_scenes
from lvae.manifests.manifest import MANIFEST
from lvae.manifests.parts.receipts import receipt_name
from lvae.manifests.storage.folder import TEMPORARY
from lvae.manifests.storage.locks import LOCK
from tests.conftest import SMALL_KL
from tests.manifests.dataset_examples import encode
from tests.pipeline.cluster import Processes, dask, free_port, listens
from tests.pipeline.faults import contents, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.xdist_group("s3")]
pytest.importorskip("s3fs")
pytest.importorskip("moto")
pytest.importorskip("distributed")

PICTURES = 48
NETWORK = ("--autoencoder", SMALL_KL, "--weights", "random:0")
SETTINGS = ("--size", "32", "--part-size", "8", "--shard-size", "64", "--split", "val=10%", *NETWORK)


class Bucket:
    """A bucket of its own on a server of its own. requests: (method, key, query) in order, as the server saw them."""

    def __init__(self, server: Processes, port: int):
        self._server = server
        self.environment = os.environ | {
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }
        self._url = f"http://127.0.0.1:{port}/latents"
        urllib.request.urlopen(urllib.request.Request(self._url, method="PUT")).close()

    def lvae(self, *arguments: str | Path, check: int = 0, **more: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "lvae", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment | more, timeout=240)
        assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def files(self) -> Any:
        import s3fs  # type: ignore[import-not-found]

        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
        key, secret, url = (self.environment[name] for name in names)
        return s3fs.S3FileSystem(key=key, secret=secret, endpoint_url=url, skip_instance_cache=True)

    def download(self, dataset: str, to: Path) -> dict[str, str]:
        self.files().get(f"latents/{dataset}", str(to), recursive=True)
        return contents(to)

    def requests(self) -> list[tuple[str, str]]:
        """Method and path with query, of all requests to the bucket so far."""
        found = []
        for line in self._server.root.joinpath("0.log").read_text().splitlines():
            words = line.split('"')
            if len(words) > 2 and "/latents" in words[1]:
                method, path, *_ = words[1].split()
                found.append((method, path))
        return found


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    server, port = Processes(tmp_path_factory.mktemp("s3")), free_port()
    server.start("-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
    wait_for("the server", lambda: listens(port))
    yield Bucket(server, port)
    server.end()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_scenes(folder, PICTURES, 32, 5)
    return folder


@pytest.fixture(scope="module")
def right(world: Path, bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of the same job on a local disk."""
    out = tmp_path_factory.mktemp("right") / "out"
    bucket.lvae("encode", world, out, *SETTINGS, "--workers", "1")
    return contents(out)


@pytest.mark.parametrize("shuffle", ["one-pass", "two-passes"])
def test_the_bytes_are_those_of_a_local_disk_and_the_manifest_comes_last(
    shuffle: str, world: Path, right: dict[str, str], bucket: Bucket, tmp_path: Path
) -> None:
    bucket.files().rm("latents/one", recursive=True) if bucket.files().exists("latents/one") else None
    before = len(bucket.requests())
    bucket.lvae("encode", world, "s3://latents/one", *SETTINGS, "--workers", "2", "--shuffle", shuffle)
    assert not bucket.files().find("latents/one/mixing")
    assert bucket.download("one", tmp_path / "one") == right
    requests = bucket.requests()[before:]
    puts = [path for method, path in requests if method == "PUT"]
    assert puts and not any("uploadId" in path or "x-amz-copy" in path for path in puts)  # single PUTs, no renames
    of_the_dataset = [path for path in puts if f"/{TEMPORARY}/" not in path and "/.lock" not in path]
    assert of_the_dataset[-1].split("?")[0].endswith(MANIFEST)
    assert bucket.files().cat_file("latents/one/.lock").startswith(b"free")
    assert not bucket.files().find(f"latents/one/{TEMPORARY}")


def test_a_dataset_on_a_store_is_verified_watched_and_taken_up_again(world: Path, bucket: Bucket) -> None:
    settings = (*SETTINGS, "--workers", "1")
    bucket.lvae("encode", world, "s3://latents/two", *settings)
    bucket.lvae("verify", "--deep", "s3://latents/two")
    assert json.loads(bucket.lvae("watch", "s3://latents/two", "--json").stdout)["stage"] == "finished"
    files = bucket.files()
    damaged = next(name for name in files.find("latents/two/raw") if name.endswith(".npy"))
    data = bytearray(files.cat_file(damaged))
    data[-1] ^= 1
    files.pipe_file(damaged, bytes(data))
    told = bucket.lvae("encode", world, "s3://latents/two", *settings).stderr
    assert "it is made again" in told
    bucket.lvae("verify", "--deep", "s3://latents/two")
    bucket.lvae("shard", "s3://latents/two", "--format", "webdataset", "--workers", "1")
    bucket.lvae("verify", "--deep", "--workers", "2", "s3://latents/two")


def test_dask_workers_and_images_and_latents_on_a_store(
    world: Path, right: dict[str, str], bucket: Bucket, tmp_path: Path
) -> None:
    bucket.files().put(str(world), "latents/world", recursive=True)
    aws = {name: value for name, value in bucket.environment.items() if name.startswith("AWS")}
    with dask(tmp_path / "dask", workers=0) as cluster:
        for _ in range(2):
            cluster.add_worker(**aws)
        bucket.lvae("encode", "s3://latents/world/", "s3://latents/three", *SETTINGS, *cluster.options)
    found = bucket.download("three", tmp_path / "three")
    assert {name for name in right if found.get(name) != right[name]} == {"plan.json"}  # which names the source
    assert found.keys() == right.keys()


def test_who_comes_second_is_refused_while_the_first_lives(world: Path, bucket: Bucket) -> None:
    arguments = ("encode", str(world), "s3://latents/six", *SETTINGS, "--workers", "1")
    job = subprocess.Popen([sys.executable, "-m", "lvae", *arguments], env=bucket.environment, stderr=subprocess.PIPE)
    wait_for("the lease", lambda: bucket.files().glob("latents/six/.lock"), 240)
    assert "another lvae command is writing here" in bucket.lvae(*arguments, check=1).stderr
    job.communicate()
    assert job.returncode == 0


def test_a_killed_command_leaves_a_lease_that_runs_out(
    world: Path, right: dict[str, str], bucket: Bucket, tmp_path: Path
) -> None:
    arguments = ("encode", str(world), "s3://latents/four", *SETTINGS, "--workers", "1")
    job = subprocess.Popen([sys.executable, "-m", "lvae", *arguments], env=bucket.environment, stderr=subprocess.PIPE)
    wait_for("a receipt", lambda: bucket.files().glob("latents/four/raw/*/part-*.json"), 240)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    assert "another lvae command holds it, or has died" in bucket.lvae(*arguments).stderr
    assert bucket.download("four", tmp_path / "four") == right


def test_a_command_that_was_stopped_for_longer_than_its_lease_writes_nothing_more(
    world: Path, right: dict[str, str], bucket: Bucket, tmp_path: Path
) -> None:
    arguments = ("encode", str(world), "s3://latents/seven", *SETTINGS, "--workers", "1")
    command = [sys.executable, "-m", "lvae", *arguments]
    job = subprocess.Popen(command, env=bucket.environment, stderr=subprocess.PIPE, text=True)
    wait_for("a receipt", lambda: bucket.files().glob("latents/seven/raw/*/part-*.json"), 240)
    job.send_signal(signal.SIGSTOP)  # the command alone; its workers go on, as those of a cluster do
    try:
        assert "another lvae command holds it, or has died" in bucket.lvae(*arguments).stderr
        assert bucket.download("seven", tmp_path / "before") == right
        before = len(bucket.requests())
    finally:
        job.send_signal(signal.SIGCONT)
    said = job.communicate(timeout=240)[1].splitlines()
    assert job.returncode == 1 and said[-1].startswith("lvae: s3://latents/seven: another lvae command has taken over")
    assert not [path for method, path in bucket.requests()[before:] if method in ("PUT", "DELETE") and LOCK not in path]
    assert bucket.download("seven", tmp_path / "after") == right


STRAGGLER = """
import os, signal, sys
from lvae.manifests.parts.plan import read_plan
from lvae.manifests.storage.object_store import RemoteFolder
from lvae.manifests.storage.open import folder_at
from tests.manifests.dataset_examples import Contents, raw_of, write_raw

folder, contents = folder_at(sys.argv[1]), Contents(seed=int(os.environ.get("SEED", "1")))
plan, left = read_plan(folder), int(sys.argv[2])
raw = raw_of(contents, plan, 1)

def stops(name):
    call = getattr(RemoteFolder, name)
    def around(*arguments):
        global left
        for step in (lambda: None, lambda: call(*arguments)):
            found = step()
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
        return found
    setattr(RemoteFolder, name, around)

stops("put")
stops("create_unguarded")
write_raw(folder, contents, plan, 1, raw)
"""


@pytest.mark.parametrize("step", range(1, 5), ids=["before raw", "after raw", "before receipt", "after receipt"])
def test_an_attempt_that_was_stopped_changes_nothing_on_a_store_either(
    bucket: Bucket, tmp_path: Path, step: int
) -> None:
    example, url = encode(tmp_path / "here"), f"s3://latents/late-{step}"
    for name in (receipt_name(1), *example.folder.names("raw/000000")):
        if "part-000001" in name:
            example.folder.remove(name)
    bucket.files().put(str(example.root), url.removeprefix("s3://"), recursive=True)
    command = [sys.executable, "-c", STRAGGLER, url, str(step)]
    job = subprocess.Popen(command, env=bucket.environment)
    _, status = os.waitpid(job.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    subprocess.run([sys.executable, "-c", STRAGGLER, url, "0"], env=bucket.environment | {"SEED": "0"}, check=True)
    before = bucket.download(url.removeprefix("s3://latents/"), tmp_path / "before")
    receipts = {name for name in before if name.endswith("part-000001.json")}
    assert len(receipts) == 1
    job.send_signal(signal.SIGCONT)
    assert job.wait(60) == 0
    after = bucket.download(url.removeprefix("s3://latents/"), tmp_path / "after")
    assert {name: after[name] for name in before} == before
    assert all(name.endswith(".npy") for name in after.keys() - before.keys())  # an orphan


def test_a_store_that_refuses_is_told_in_one_line(world: Path, bucket: Bucket) -> None:
    nothing = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}
    said = bucket.lvae("encode", world, "s3://latents/five", *SETTINGS, check=1, **nothing).stderr
    assert said.splitlines()[-1].startswith("lvae: s3://latents/five")
    assert "credentials" in said.splitlines()[-1] and "Traceback" not in said
    said = bucket.lvae("encode", world, "s3://no-such-bucket/five", *SETTINGS, check=1).stderr
    assert said.splitlines()[-1].startswith("lvae: s3://no-such-bucket/five") and "Traceback" not in said
