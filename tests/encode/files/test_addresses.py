"""Requests for images that may go to public addresses alone."""

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner

from lvae.cli import main
from lvae.encode.files import addresses, locations
from lvae.encode.files.addresses import PublicOnly, is_public
from lvae.encode.sources.open import open_reader, open_source
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import read_plan
from lvae.manifests.storage.folder import Folder
from tests.encode.source_examples import png, serving


@pytest.fixture(autouse=True)
def held() -> Iterator[None]:
    PublicOnly.on = True
    yield
    PublicOnly.on = False


NEARBY = (
    "127.0.0.1 10.0.0.1 172.16.9.9 192.168.1.1 169.254.169.254 100.100.100.200 0.0.0.0 224.0.0.1 168.63.129.16 "
    "255.255.255.255 :: ::1 fe80::1%eth0 fd00:ec2::254 ff02::1 ::ffff:127.0.0.1 ::ffff:a9fe:a9fe ::127.0.0.1 "
    "64:ff9b::a00:1 2002:7f00:1:: fec0::1"
)


@pytest.mark.parametrize("address", NEARBY.split())
def test_addresses_of_machines_nearby_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_other_addresses_are(address: str) -> None:
    assert is_public(address)


SPELLINGS = ["127.0.0.1", "localhost", "2130706433", "0177.0.0.1", "0x7f.1", "127.1", "[0:0:0:0:0:ffff:7f00:1]"]


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_leads_to_this_machine(tmp_path: Path, host: str) -> None:
    (tmp_path / "a.png").write_bytes(png())
    with serving(tmp_path) as server:
        url = server.url.replace("127.0.0.1", host)
        with pytest.raises(LvaeError, match=r"is no public address|not a canonical IPv4 address"):
            locations.status(f"{url}/a.png")
        with pytest.raises(LvaeError, match=r"is no public address|not a canonical IPv4 address"):
            locations.first_bytes(f"{url}/a.png", 4)
        assert server.requests == []


def test_a_redirect_does_not_lead_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(png())

    class Redirect(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"{server.url}{self.path}")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with serving(tmp_path) as server, ThreadingHTTPServer(("127.0.0.2", 0), Redirect) as http:
        Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.2:{http.server_address[1]}/a.png"
        PublicOnly.on = False
        assert locations.status(url).size == len(png())
        PublicOnly.on = True
        asked = len(server.requests)
        monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.2")
        with pytest.raises(LvaeError, match=r"127\.0\.0\.1: is no public address"):
            locations.status(url)
        assert len(server.requests) == asked
        http.shutdown()


@pytest.mark.parametrize("scheme", ["ftp", "sftp", "smb", "webhdfs"])
def test_protocols_that_cannot_be_held_are_refused(scheme: str) -> None:
    with pytest.raises(LvaeError, match="cannot be held to public addresses"):
        locations.status(f"{scheme}://169.254.169.254/a.png")


def test_names_are_checked_when_they_are_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a name meant when it was first asked about."""
    place = socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.1.2.3", 80)
    with pytest.raises(LvaeError):
        addresses.connect_to_public(place)
    with addresses.connect_to_public((*place[:4], ("8.8.8.8", 80))) as made:
        assert made.family == socket.AF_INET


def test_the_plan_keeps_it_for_workers_and_the_next_command(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "list.txt").write_text("a.png\n")
    out = tmp_path / "out"
    for options in (["--refuse-private-addresses"], []):
        done = CliRunner().invoke(main, ["scan", str(tmp_path / "list.txt"), str(out), *options])
        assert done.exit_code == 0, done.output
        plan = read_plan(Folder(out))
        assert plan is not None
        assert plan.origins[0].addresses == "public"
    PublicOnly.on = False
    open_reader("list", plan.origins[0].source, plan.origins[0].addresses)
    assert PublicOnly.on


def test_a_list_of_urls_is_held(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    with serving(tmp_path) as server:
        (tmp_path / "list.txt").write_text(f"{server.url}/a.png\n")
        done = CliRunner().invoke(
            main, ["scan", str(tmp_path / "list.txt"), str(tmp_path / "out"), "--refuse-private-addresses"]
        )
        assert (done.exit_code, "is no public address" in done.output) == (1, True)
        PublicOnly.on = False
        assert len(list(open_source(str(tmp_path / "list.txt")).rows())) == 1


@pytest.mark.parametrize("host", ["[::ffff:10.0.0.1]", "[::1]:8000", "[fe80::1%eth0]"])
def test_addresses_with_colons_are_no_chains_of_urls(host: str) -> None:
    from lvae.encode.files.locations import resolve

    assert resolve(f"http://{host}/a.tar") == f"http://{host}/a.tar"
    with pytest.raises(LvaeError, match="is a chain of URLs"):
        resolve(f"zip://a.png::http://{host}/a.zip")
