import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import (
    Encoding,
    Origin,
    Plan,
    first_difference,
    read_plan,
    read_plan_if_whole,
    refuse_change,
    write_plan,
)
from lvae.manifests.parts.rows import Listing
from lvae.manifests.storage.folder import Folder
from tests.manifests.dataset_examples import Contents, flip, plan_of


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_of(Folder(tmp_path), Contents(images=5))


def test_a_plan_is_read_as_it_was_written(tmp_path: Path, plan: Plan) -> None:
    assert read_plan(Folder(tmp_path)) == plan
    scanned = replace(plan, encoding=None)
    write_plan(Folder(tmp_path), scanned)
    assert read_plan(Folder(tmp_path)) == scanned


def test_a_folder_without_a_plan_has_none(tmp_path: Path) -> None:
    assert read_plan(Folder(tmp_path)) is None and read_plan_if_whole(Folder(tmp_path)) is None


def test_any_flipped_bit_is_noticed(tmp_path: Path, plan: Plan) -> None:
    path = tmp_path / "plan.json"
    data = path.read_bytes()
    for byte in range(len(data)):
        for bit in (byte % 8, (byte + 5) % 8):
            flip(path, byte, bit)
            with pytest.raises(LvaeError, match=r"plan\.json"):
                read_plan(Folder(tmp_path))
            path.write_bytes(data)
    assert read_plan(Folder(tmp_path)) == plan


@pytest.mark.parametrize("left", [0, 1, 100, -2])
def test_a_plan_cut_short_is_noticed(tmp_path: Path, plan: Plan, left: int) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(LvaeError, match=r"plan\.json"):
        read_plan(Folder(tmp_path))
    assert read_plan_if_whole(Folder(tmp_path)) is None


def test_a_plan_without_its_hash_is_noticed(tmp_path: Path, plan: Plan) -> None:
    path = tmp_path / "plan.json"
    content = json.loads(path.read_text())
    del content["self_sha256"]
    path.write_text(json.dumps(content))
    with pytest.raises(LvaeError, match="changed or damaged"):
        read_plan(Folder(tmp_path))


@pytest.mark.parametrize("text", ["[]", "null", "3", '"plan"'])
def test_json_that_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(LvaeError, match="must be an object"):
        read_plan(Folder(tmp_path))


def test_the_hash_of_a_plan_does_not_depend_on_where_its_images_lie(plan: Plan) -> None:
    elsewhere = replace(plan, origins=(Origin("/mnt/other.zip", 5, "file"),))
    assert elsewhere.sha256 == plan.sha256


def test_the_hash_of_a_plan_depends_on_every_deciding_setting(plan: Plan) -> None:
    encoding = plan.encoded()
    others = [
        replace(plan, encoding=None),
        *(
            replace(plan, listing=Listing((replace(plan.listing.segments[0], **change),)))
            for change in ({"sha256": "0" * 64}, {"part_size": 19}, {"classes": ("dog", "cat", "猫")}, {"images": 6})
        ),
        *(
            replace(plan, encoding=replace(encoding, **change))
            for change in ({"seed": 1}, {"batch": 9}, {"precision": "tf32"}, {"threads": 2})
        ),
        *(
            replace(plan, encoding=replace(encoding, image=replace(encoding.image, **change)))
            for change in ({"size": 24}, {"crop": "lsun"}, {"mirrored": False})
        ),
        *(
            replace(plan, encoding=replace(encoding, autoencoder=replace(encoding.autoencoder, **change)))
            for change in ({"name": "x"}, {"weights_sha256": "6" * 64}, {"store": "sample"}, {"architecture": {}})
        ),
    ]
    assert len({plan.sha256, *(other.sha256 for other in others)}) == 1 + len(others)


def test_another_setting_is_refused_by_name(plan: Plan) -> None:
    encoding = plan.encoded()
    changed = replace(encoding, image=replace(encoding.image, crop="lsun"))
    with pytest.raises(LvaeError, match=r"^flowers: was made with --crop adm, but this command says lsun\. Give"):
        refuse_change(Folder("flowers"), encoding, changed)


def test_the_same_settings_are_not_refused(plan: Plan) -> None:
    encoding = plan.encoded()
    refuse_change(Folder("flowers"), encoding, records.from_plain(Encoding, records.plain(encoding), "plan"))


def test_long_settings_are_shortened_in_what_is_refused() -> None:
    with pytest.raises(LvaeError) as refusal:
        refuse_change(Folder("flowers"), {"architecture": "x" * 1000}, {"architecture": "y" * 1000})
    assert len(str(refusal.value)) < 300


def test_a_setting_that_only_one_side_has_is_a_difference() -> None:
    assert first_difference({"a": {"b": 1}}, {"a": {}}) == ("a.b", 1, None)
    assert first_difference({"a": [1, 2]}, {"a": (1, 2)}) is None


def test_a_scanned_dataset_says_that_it_is_not_encoded(plan: Plan) -> None:
    with pytest.raises(LvaeError, match="Run 'lvae encode'"):
        replace(plan, encoding=None).encoded()


def test_shapes_follow_from_the_settings(tmp_path: Path) -> None:
    for contents, latent, raw, dtype in [
        (Contents(images=1), (4, 2, 2), (4, 2, 2), "float32"),
        (Contents(images=1, store="moments"), (4, 2, 2), (8, 2, 2), "float32"),
        (Contents(images=1, pixels=True), (3, 4, 4), (3, 4, 4), "uint8"),
    ]:
        encoding = plan_of(Folder(tmp_path), contents).encoded()
        assert (encoding.latent_shape, encoding.raw_shape, encoding.raw_dtype) == (latent, raw, dtype)


def test_the_plans_before_each_append_are_hashed_once(plan: Plan) -> None:
    """Every prefix from its start would be hours for some thousand appends: 1.1 million segments here."""
    [segment] = plan.listing.segments
    segments = tuple(replace(segment, sha256=f"{number:064x}") for number in range(1500))
    long = replace(plan, origins=plan.origins * 1500, listing=Listing(segments))
    start = time.process_time()
    middle = replace(plan, origins=plan.origins * 750, listing=Listing(segments[:750]))
    assert long.before_append(middle.sha256) == middle
    assert long.before_append("0" * 64) is None
    assert time.process_time() - start < 5
