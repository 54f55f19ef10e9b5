"""Published weights on this machine, and users without a home."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from lvae.commands.autoencoder import autoencoder
from lvae.encode.catalogue.published import PUBLISHED, find_in_hub_cache, find_weights

NAMES = ("HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE")


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user that no file knows, as in a container that runs as a number."""

    def unknown(number: int) -> None:
        raise KeyError(number)

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_a_user_without_a_home_can_list_and_has_nothing_fetched(nobody: None, tmp_path: Path) -> None:
    assert find_weights("kl-f8") is None
    assert find_weights("default") is not None
    assert find_in_hub_cache(PUBLISHED["taesd"]) is None
    result = CliRunner().invoke(autoencoder, ["list"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "sd-vae-ft-mse" in result.output


def test_what_needs_a_cache_says_in_one_line_what_to_set(nobody: None) -> None:
    from lvae.encode.zoo.fetch import fetch
    from lvae.manifests.errors import LvaeError

    with pytest.raises(LvaeError, match="Set XDG_CACHE_HOME to a folder"):
        fetch("taesd", lambda note: None)


@pytest.mark.parametrize("home", ["a file", "missing"])
def test_a_home_that_is_no_folder_holds_nothing(home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / home))
    assert find_weights("kl-f8") is None
    assert find_in_hub_cache(PUBLISHED["taesd"]) is None


AS_A_NUMBER = """
import os, sys
from click.testing import CliRunner
from lvae.cli import main

folder = sys.argv[1]
commands = (
    ["autoencoder", "list"],
    ["encode", f"{folder}/src", f"{folder}/out", "--autoencoder", "kl-f8", "--size", "32"],
)
os.environ["HOME"] = folder
for command in commands:  # what they import may lie where only the owner reads
    CliRunner().invoke(main, command)
del os.environ["HOME"]
os.setgroups([])
os.setgid(12345)
os.setuid(12345)
for command in commands:
    result = CliRunner().invoke(main, command)
    print(result.exit_code, repr(result.exception), result.stderr.splitlines()[-1:], os.path.exists(f"{folder}/out"))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="another user's number can be taken by root alone")
def test_a_process_without_a_home_and_a_passwd_entry_says_what_is_missing(scenes: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        shutil.copytree(scenes, f"{folder}/src")
        environment = {name: value for name, value in os.environ.items() if name not in NAMES}
        command = [sys.executable, "-c", AS_A_NUMBER, folder]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    listed, encoded = done.stdout.splitlines()
    assert listed.startswith(("0 None", "0 SystemExit(0)"))
    assert encoded.startswith('1 SystemExit(1) ["lvae: kl-f8: needs weights.') and encoded.endswith("False")
