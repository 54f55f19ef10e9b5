"""Updates: what is applied, what is skipped, what moves and what stays."""

import pytest
import torch
from torch import Tensor

from lvae.train.data.batches import Batch
from lvae.train.loop.counts import GIVE_IN_AFTER, TRUSTING_UPDATES, count_update, decide, first_counts
from lvae.train.loop.parameters import Parameters
from lvae.train.loop.update import Updater, averaging_weight
from tests.train.trainer_examples import batch, model_config, train_config, updater


def state(found: Updater, counts: bool = True) -> dict[str, Tensor]:
    """Every tensor of an updater, copied."""
    return {
        f"{group}.{name}": tensor.clone()
        for group, tensors in found.groups().items()
        for name, tensor in tensors.items()
        if counts or not name.startswith("counts.")
    }


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first.keys() | second.keys())


def spoiled(value: float) -> Batch:
    found = batch()
    return found._replace(latents=torch.full_like(found.latents, value))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e20])
def test_a_gradient_that_is_not_finite_changes_nothing_even_at_the_start(value: float) -> None:
    training = updater()
    training([batch()])
    before = state(training, counts=False)
    training([spoiled(value)])
    assert same(before, state(training, counts=False))
    counts = training.read_counts()
    assert (int(counts["applied"]), int(counts["skipped"]), int(counts["useless"])) == (1, 1, 1)
    assert bool(torch.isfinite(counts["sums"]).all())
    training([batch(1)])
    assert not same(before, state(training, counts=False))
    assert int(training.read_counts()["useless"]) == 0


def settled(training: Updater) -> Updater:
    """As if it had been trained for long."""
    training.counts["applied"].fill_(TRUSTING_UPDATES)
    return training


def test_an_exploding_gradient_is_skipped_once_the_model_has_settled() -> None:
    young, old = updater(), settled(updater())
    for training, applied in ((young, 1), (old, 0)):
        training.counts["threshold"].fill_(1.0)
        before = state(training, counts=False)
        training([batch()])
        assert same(before, state(training, counts=False)) == (applied == 0)
        assert int(training.read_counts()["skipped"]) == 1 - applied


def test_the_threshold_is_in_units_of_the_latents() -> None:
    assert float(updater(train_config(skip_threshold=300.0)).counts["threshold"]) == 300 * 4 * 8 * 8


def test_a_threshold_that_skips_everything_gives_in() -> None:
    training = settled(updater())
    training.counts["threshold"].fill_(1.0)
    for number in range(GIVE_IN_AFTER):
        training([batch(number)])
    counts = training.read_counts()
    assert int(counts["skipped"]) == GIVE_IN_AFTER
    assert float(counts["threshold"]) > 100
    training([batch(0)])
    assert int(training.read_counts()["applied"]) == TRUSTING_UPDATES + 1


def test_useless_numbers_never_raise_the_threshold() -> None:
    training = settled(updater())
    for _ in range(GIVE_IN_AFTER + 1):
        training([spoiled(float("nan"))])
    counts = training.read_counts()
    assert float(counts["threshold"]) == 300 * 4 * 8 * 8
    assert int(counts["useless"]) == GIVE_IN_AFTER + 1


def test_the_first_update_has_a_rate_of_zero() -> None:
    training = updater()
    before = {name: parameter.clone() for name, parameter in training.model.named_parameters()}
    training([batch()])
    assert all(torch.equal(before[name], parameter) for name, parameter in training.model.named_parameters())
    assert any(bool(moment.any()) for moment in training.adam.first)
    training([batch(1)])
    assert not all(torch.equal(before[name], parameter) for name, parameter in training.model.named_parameters())


def test_singular_vectors_move_once_per_update_with_the_weights_of_the_forward_pass() -> None:
    once, twice = updater(train_config(accumulate=1)), updater(train_config(accumulate=2))
    once([batch()])
    twice([batch(), batch(1)])
    vectors = [dict(training.model.named_buffers()) for training in (once, twice)]
    assert vectors[0]
    for name, vector in vectors[0].items():
        layer = once.model.get_submodule(name.rpartition(".")[0])
        # The first update leaves the weights alone: those of the forward pass are still there.
        matrix = layer.matrix.double()  # type: ignore[operator, union-attr]
        fresh = updater().model.get_buffer(name).double()
        right = fresh @ matrix / (fresh @ matrix).norm()
        moved = right @ matrix.T / (right @ matrix.T).norm()
        # Prior blocks have no vectors that count without a hierarchical prior.
        expected = moved if "posterior" in name else fresh
        torch.testing.assert_close(vector.double(), expected, rtol=1e-4, atol=1e-6)
        assert torch.equal(vector, vectors[1][name])


def test_redrawn_singular_vectors_are_those_of_the_update_and_the_others_as_before() -> None:
    one, other, kept = (updater(train_config(singular_vectors=name)) for name in ("redrawn", "redrawn", "kept"))
    one([batch(0)])
    first = [vector.clone() for vector in one.model.singular_vectors()]
    one([batch(1)])
    other([batch(1)])
    kept([batch(1)])
    for before, after, alone, moved in zip(
        first, *(training.model.singular_vectors() for training in (one, other, kept)), strict=True
    ):
        assert torch.equal(after, alone) and not torch.equal(after, before)
        assert float(moved.norm()) == pytest.approx(1) and float(after.norm()) != pytest.approx(1)


def test_the_average_follows_the_new_weights() -> None:
    training = updater(train_config(ema=0.75, warm_up_updates=0))
    before = training.parameters.named(training.parameters.copies())
    training([batch()])
    after, average = (training.parameters.named(t) for t in (training.parameters.tensors, training.average))
    for name, weights in before.items():
        torch.testing.assert_close(average[name], 0.75 * weights + 0.25 * after[name])


def test_two_micro_batches_are_one_batch_of_twice_the_size() -> None:
    whole, halves = updater(train_config(batch=16)), updater(train_config(batch=8, accumulate=2))
    for number in range(3):
        large = batch(number, size=16)
        whole([large])
        parts = [large._replace(latents=part) for part in large.latents.chunk(2)]
        halves([parts[0], parts[1]._replace(first=large.first + 8)])
    first, second = (training.read_counts()["sums"] for training in (whole, halves))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


def test_what_is_restored_goes_on_bit_for_bit() -> None:
    config = model_config(classes=3, hierarchical_prior=True)
    through, stopped = updater(model=config), updater(model=config)
    for number in range(3):
        through([batch(number, classes=3)])
        stopped([batch(number, classes=3)])
    restored = updater(model=config)
    restored.restore(stopped.groups())
    for number in range(3, 6):
        through([batch(number, classes=3)])
        restored([batch(number, classes=3)])
    assert same(state(through), state(restored))


def test_inside_the_average_the_model_is_the_average_and_afterwards_itself() -> None:
    training = updater(train_config(warm_up_updates=0))
    training([batch()])
    before = state(training)
    average = training.parameters.named(training.average)
    with training.using_average():
        inside = dict(training.model.named_parameters())
        assert all(torch.equal(inside[name], average[name]) for name in inside)
    assert same(before, state(training))


def test_flat_and_separate_parameters_train_alike() -> None:
    found = []
    for flat in (True, False):
        training = updater()
        if not flat:
            training.parameters = Parameters(training.model, flat=False)
            training.average = training.parameters.copies()
            training.adam.first, training.adam.second = training.parameters.like(), training.parameters.like()
            training.adam._fused = False
        for number in range(4):
            training([batch(number)])
        found.append(training.read_counts()["sums"])
    # Losses, rates and norms: a weight whose gradient is next to nothing takes its sign from rounding.
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_flat_model_computes_as_it_did(layout: torch.memory_format) -> None:
    model = updater().model
    reference = updater().model
    Parameters(model.to(memory_format=layout), flat=True)  # type: ignore[call-overload]
    x = batch().latents
    # channels-last convolutions add in another order
    torch.testing.assert_close(model(x).mean, reference(x).mean, rtol=1e-4, atol=1e-5)
    model(x).mean.sum().backward()
    reference(x).mean.sum().backward()
    for (name, one), (_, other) in zip(model.named_parameters(), reference.named_parameters(), strict=True):
        wanted = torch.zeros_like(other) if other.grad is None else other.grad
        assert one.grad is not None
        torch.testing.assert_close(one.grad, wanted, rtol=1e-3, atol=1e-3, msg=name)


def test_a_large_gradient_is_clipped_where_that_is_asked() -> None:
    free, clipped = (updater(train_config(gradient_clip=clip)) for clip in (None, 1.0))
    for training in (free, clipped):
        training([batch(0)])
    norm = float(free.read_counts()["sums"][4])
    assert norm > 1
    assert float(clipped.read_counts()["sums"][4]) == norm  # what is written down is the gradient's own
    assert torch.allclose(free.adam.first[0], norm * clipped.adam.first[0], rtol=1e-4)


def test_several_averages_are_kept_and_come_back() -> None:
    training = updater(train_config(ema=0.9, more_emas=(0.0, 0.99)))
    for number in range(3):
        training([batch(number)])
    groups = training.groups()
    assert sorted(groups) == ["ema", "ema_0", "ema_099", "model", "optimizer"]
    name = "outproj.weight"
    assert torch.equal(groups["ema_0"][name], groups["model"][name])
    assert not torch.equal(groups["ema"][name], groups["ema_099"][name])
    other = updater(train_config(ema=0.9, more_emas=(0.0, 0.99, 0.5)))  # one more begins with the main one
    other.restore(training.snapshot())
    assert torch.equal(other.groups()["ema_05"][name], groups["ema"][name])
    assert torch.equal(other.groups()["ema_099"][name], groups["ema_099"][name])


def test_an_average_may_begin_short() -> None:
    config = train_config(ema=0.999, ema_warm_up=True)
    weights = [float(averaging_weight(config, 0.999, torch.tensor(n))) for n in (0, 8, 100_000)]
    assert weights == pytest.approx([0.9, 0.5, 0.001], rel=1e-4)
    assert averaging_weight(train_config(ema=0.999), 0.999, torch.tensor(0)) == 1 - 0.999


def test_a_raised_threshold_comes_down_again() -> None:
    counts = first_counts(10.0, 1) | {"threshold": torch.tensor(40.0), "applied": torch.tensor(5000, dtype=torch.int32)}
    for _ in range(300):
        decision = decide(torch.tensor(1.0), torch.tensor(1.0), counts)
        counts = count_update(counts, decision, torch.tensor(1.0), torch.zeros(7), torch.tensor(1), 10.0)
    assert float(counts["threshold"]) == 10.0
