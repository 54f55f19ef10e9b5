"""Refusals name settings as a person types them."""

import dataclasses

from click.testing import CliRunner

from lvae.cli import main
from lvae.manifests.messages import OPTIONS, option_of, value_of
from lvae.manifests.views.selection import Selection
from lvae.manifests.views.view import ViewSettings


def test_every_option_named_is_one_of_encode_or_shard() -> None:
    shown = "".join(CliRunner().invoke(main, [command, "--help"]).output for command in ("encode", "shard"))
    assert all(option in shown for option in OPTIONS.values())


def test_every_setting_of_a_view_has_an_option() -> None:
    for field in dataclasses.fields(ViewSettings):
        if field.name != "selection":
            assert option_of(field.name).startswith("--")
    for field in dataclasses.fields(Selection):
        assert option_of(f"selection.{field.name}").startswith("--")
    assert option_of("selection.split.val") == "--split"


def test_what_has_no_option_keeps_its_name() -> None:
    assert option_of("threads") == "threads"
    assert option_of("autoencoder.architecture.codes") == "--autoencoder with codes"
    assert option_of("--autoencoder") == "--autoencoder"


def test_values_are_words_and_short() -> None:
    assert [value_of(value) for value in (True, False, None, 0, 1, "adm")] == ["yes", "no", "none", "0", "1", "adm"]
    assert len(value_of("x" * 1000)) == 80
