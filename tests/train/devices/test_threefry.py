"""Noise: a function of its place, normal, and the published generator's."""

import scipy.stats
import torch

from lvae.manifests.seeds import derive
from lvae.train.devices.device import Device
from lvae.train.devices.threefry import counted_normal, key_of, threefry

# Known answers of the authors' Random123 library (kat_vectors, "threefry2x32 20"): counter, key, result.
KNOWN = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


def words(pair: tuple[int, int]) -> torch.Tensor:
    return key_of(pair[0] | pair[1] << 32)


def test_threefry_gives_the_published_answers() -> None:
    for counter, key, answer in KNOWN:
        first, second = threefry(words(key), *words(counter))
        assert torch.equal(torch.stack([first, second]), words(answer))


def test_a_sample_does_not_depend_on_its_batch() -> None:
    device = Device()
    whole = device.normals(7, 100, 8, 33)
    assert torch.equal(device.normals(7, 104, 2, 33), whole[4:6])
    assert not torch.equal(device.normals(8, 104, 2, 33), whole[4:6])


def test_counted_noise_does_not_depend_on_how_many_rows_there_are() -> None:
    key = key_of(derive(0, "noise", 0))
    assert torch.equal(counted_normal(key, 3, 10), counted_normal(key, 8, 10)[:3])


def test_noise_is_standard_normal() -> None:
    drawn = {
        "counted": counted_normal(key_of(derive(1, "noise", 5)), 100, 2001),
        "by seed": Device().normals(1, 500, 100, 2001),
    }
    for name, noise in drawn.items():
        assert scipy.stats.kstest(noise.flatten().numpy(), "norm").pvalue > 0.01, name
        rows, columns = noise.mean(1) * 2001**0.5, noise.mean(0) * 100**0.5
        assert scipy.stats.kstest(rows.numpy(), "norm").pvalue > 0.01, name
        assert scipy.stats.kstest(columns.numpy(), "norm").pvalue > 0.01, name


def test_rows_may_be_drawn_from_any_place_on() -> None:
    key = key_of(7)
    whole = counted_normal(key, 6, 5, (1 << 32) - 3)
    assert torch.equal(whole[2:], counted_normal(key, 4, 5, (1 << 32) - 1))
    assert torch.equal(whole[3:], counted_normal(key, 3, 5, 0))
    start = torch.tensor([-3], dtype=torch.int32)  # the same place, where it must not become part of a program
    assert torch.equal(whole, counted_normal(key, 6, 5, start))
