"""The model as its users meet it: sizes, gradients, samples, guidance, and the door for manipulation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lvae.manifests.errors import LvaeError
from lvae.train.config import ModelConfig
from lvae.train.losses import loss, rate_schedule
from lvae.train.model import HierarchicalVAE
from lvae.train.network.choices import Guidance
from lvae.train.network.groups import StochasticGroup
from lvae.train.network.layers import Attention
from lvae.train.network.noise import draw_noise
from lvae.train.presets import NAMES, model_preset, paper_guidance
from tests.train.model_examples import (
    ABOVE_ONE,
    CONDITIONAL,
    EXAMPLES,
    LABELLED_PLAIN,
    PLAIN,
    UNCONDITIONAL,
    UPSAMPLER,
    batch,
    lively,
    scaled_down,
)

torch.set_num_threads(1)

# Exact counts of the published code's models (the facts, section 4); the paper rounds them in Table 5.
PARAMETERS = {
    "church256-f8": 119_137_672,
    "church32-rgb": 119_135_558,
    "church256-upsampler": 62_868_326,
    "church256-pixels": 143_320_038,
    "bedroom256-f4": 96_241_478,
    "bedroom256-f8": 107_179_944,
    "bedroom256-f16": 99_837_632,
    "imagenet256-f8": 386_366_344,
}
# Leaves of the published Flax trees, parameters and vectors.
LEAVES = {"church256-f8": (1329, 80), "bedroom256-f4": (1539, 100), "imagenet256-f8": (1868, 96)}
# One image alone or among others: torch chooses other kernels by batch size. Relative to the largest value.
BATCH_TOLERANCE = 1e-5


def on_meta(config: ModelConfig) -> HierarchicalVAE:
    with torch.device("meta"):
        return HierarchicalVAE(config)


def apart(first: Tensor, second: Tensor) -> float:
    return float(((first - second).abs().max() / second.abs().max()).detach())


@pytest.mark.parametrize("name", PARAMETERS)
def test_presets_have_the_published_number_of_parameters(name: str) -> None:
    assert sum(parameter.numel() for parameter in on_meta(model_preset(name)).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", LEAVES)
def test_presets_have_the_published_number_of_tensors(name: str) -> None:
    model = on_meta(model_preset(name))
    assert (len(list(model.parameters())), len(list(model.buffers()))) == LEAVES[name]


def dead_rows(model: HierarchicalVAE) -> dict[str, int]:
    """Names of published attention's projections whose rows from this one on (keys, values) never learn."""
    return {
        f"{name}.qkvproj.{part}": layer.outproj.out_features
        for name, layer in model.named_modules()
        if isinstance(layer, Attention) and layer.qkvproj is not None and layer.kind == "published"
        for part in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("name", "attention"),
    [
        *((name, "softmax") for name in NAMES),
        *((name, "published") for name in PARAMETERS),
        ("imagenet256-f8", "normalized"),
    ],
)
def test_every_parameter_gets_a_gradient(name: str, attention: str) -> None:
    config = replace(scaled_down(name), attention=attention)  # type: ignore[arg-type]
    model = lively(config)
    count = 2 if config.resolution <= 64 else 1
    x, labels = batch(config, count)
    out = model(x, labels, drop=torch.tensor([True, False])[:count])
    schedule = rate_schedule("shifted_exp", {"scale": 10, "shift": 1}, config.groups)
    loss(out, x, schedule, 0.1, 0.1).total.backward()
    dead = dead_rows(model)
    assert bool(dead) == (attention == "published")
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        if parameter_name in dead:
            alive = dead[parameter_name]
            assert (parameter.grad[alive:] == 0).all(), parameter_name
            assert (parameter.grad[:alive] != 0).any(), parameter_name
        elif parameter_name.endswith("qkvproj.bias"):  # softmax does not see what is added to every key
            width = len(parameter) // 3
            assert all((part != 0).any() for part in parameter.grad.split(width)[::2]), parameter_name
        else:
            assert parameter.grad.isfinite().all(), parameter_name
            assert (parameter.grad != 0).any(), parameter_name


def test_a_new_model_starts_from_the_standard_normal_prior_and_trains() -> None:
    model = HierarchicalVAE(CONDITIONAL)
    x, labels = batch(CONDITIONAL)
    found = model.infer(x, labels)
    for prior in found.priors:
        torch.testing.assert_close(prior.mean, torch.zeros_like(prior.mean), rtol=0, atol=1e-6)
        torch.testing.assert_close(prior.variance, torch.full_like(prior.variance, 1.00021), rtol=1e-5, atol=0)
    schedule = rate_schedule("shifted_exp", {"scale": 10, "shift": 1}, CONDITIONAL.groups)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3, betas=(0.9, 0.9))
    totals = []
    for _ in range(12):
        optimizer.zero_grad()
        out = model(x, labels)
        model.move_singular_vectors()
        total = loss(out, x, schedule, 0.1, 0.1).total
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.9 * totals[0]


def test_weights_are_a_function_of_the_seed_and_touch_nobodys_random_state() -> None:
    before = torch.get_rng_state()
    first, again, other = HierarchicalVAE(PLAIN), HierarchicalVAE(PLAIN), HierarchicalVAE(PLAIN, seed=1)
    model = on_meta(PLAIN).to_empty(device="cpu")
    model.initialize(0)
    x, _ = batch(PLAIN)
    model(x)
    model.sample(2)
    assert torch.get_rng_state().equal(before)
    for name, tensor in first.state_dict().items():
        assert tensor.equal(again.state_dict()[name])
        assert tensor.equal(model.state_dict()[name])
    assert not first.outproj.weight.equal(other.outproj.weight)


@pytest.mark.parametrize("name", EXAMPLES)
def test_drawn_noise_and_given_noise_take_the_same_path(name: str) -> None:
    config = EXAMPLES[name]
    model, (x, labels) = lively(config), batch(config)
    noise = draw_noise(config, range(3))
    assert all(a.equal(b) for a, b in zip(model(x, labels), model(x, labels, noise), strict=True))
    low = None if config.low_resolution_factor is None else torch.zeros(3, config.channels, 8, 8)
    assert model.sample(3, labels, low_resolution=low).equal(model.sample(3, labels, noise, low_resolution=low))


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    config = EXAMPLES[name]
    model, (x, labels) = lively(config), batch(config)
    low = None if config.low_resolution_factor is None else x[:, :, ::2, ::2]
    noise = draw_noise(config, range(3))
    together = model.sample(3, labels, noise, guidance_mean=1.0, low_resolution=low)
    for index in range(3):
        at = slice(index, index + 1)
        alone = model.sample(
            1,
            None if labels is None else labels[at],
            [n[at] for n in noise],
            guidance_mean=1.0,
            low_resolution=None if low is None else low[at],
        )
        assert apart(alone, together[at]) < BATCH_TOLERANCE


def test_forward_does_not_move_the_vectors_and_an_applied_update_moves_them_once() -> None:
    model, (x, labels) = lively(CONDITIONAL), batch(CONDITIONAL)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    spectral = model(x, labels).spectral
    assert model(x, labels).spectral.equal(spectral)
    model.move_singular_vectors(torch.tensor(False))
    assert all(buffer.equal(before[name]) for name, buffer in model.named_buffers())
    model.move_singular_vectors(torch.tensor(True))
    for name, buffer in model.named_buffers():
        assert name.endswith(".singular_vectors")
        kernel = model.get_submodule(name.removesuffix(".singular_vectors")).get_parameter("conv.weight")
        matrix, u = kernel.detach().numpy().reshape(len(kernel), -1).T.astype(np.float64), before[name].numpy()
        v = u @ matrix.T
        u = (v / np.linalg.norm(v)) @ matrix
        np.testing.assert_allclose(buffer.numpy(), u / np.linalg.norm(u), atol=1e-5)


def test_vectors_are_kept_with_the_weights() -> None:
    model = lively(CONDITIONAL)
    names = {name for name in model.state_dict() if name.endswith(".singular_vectors")}
    assert len(names) == 2 * sum(CONDITIONAL.groups)
    assert all(model.state_dict()[name].shape[0] == 1 for name in names)


def test_the_converged_penalty_is_the_sum_of_resolution_times_largest_singular_value() -> None:
    model = lively(CONDITIONAL)
    expected = 0.0
    for module in model.modules():
        if isinstance(module, StochasticGroup):
            for layer in module.penalized:
                values = np.linalg.svd(layer.conv.weight.detach().flatten(1).numpy(), compute_uv=False)
                expected += module.resolution * float(values[0])
    for _ in range(500):
        model.move_singular_vectors()
    assert float(model.spectral().detach()) == pytest.approx(expected, rel=1e-4)


def test_without_a_hierarchical_prior_its_layers_are_not_penalized() -> None:
    model = lively(PLAIN)
    model.spectral().backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == ("posterior_block" in name and ".conv.weight" in name)


def test_labels_reach_posterior_and_prior_but_dropped_ones_only_the_posterior() -> None:
    model, (x, labels) = lively(CONDITIONAL), batch(CONDITIONAL)
    told, dropped = model(x, labels), model(x, labels, drop=torch.tensor([True, True, True]))
    nobody = model(x)
    assert not told.rates.equal(dropped.rates)
    assert not nobody.rates.equal(dropped.rates)
    assert model(x, torch.tensor([-1, -1, -1])).rates.equal(nobody.rates)
    some = model(x, labels, drop=torch.tensor([True, False, True]))
    torch.testing.assert_close(some.rates[:, 1], told.rates[:, 1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(some.rates[:, 0], dropped.rates[:, 0], rtol=1e-5, atol=1e-5)


def batches_seen(model: HierarchicalVAE, **guidance: float | list[float]) -> list[int]:
    """How many states each prior was asked about, while two images are sampled."""
    return batches_through(model, "prior_block", **guidance)


def batches_through(model: HierarchicalVAE, block: str, **guidance: float | list[float]) -> list[int]:
    """The same of another block of each group."""
    seen: list[int] = []
    hooks = [
        getattr(module, block).register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        for module in model.modules()
        if isinstance(module, StochasticGroup)
    ]
    model.sample(2, torch.tensor([0, 1]) if model.config.classes else None, **guidance)  # type: ignore[arg-type]
    for hook in hooks:
        hook.remove()
    return seen


def test_without_guidance_the_unconditional_path_never_runs() -> None:
    conditional = lively(CONDITIONAL)
    assert set(batches_seen(conditional)) == {2}
    assert set(batches_seen(conditional, guidance_mean=0, guidance_variance=[0, 0, 0, 0])) == {2}
    assert set(batches_seen(conditional, guidance_mean=1)) == {4}
    for config in (UNCONDITIONAL, LABELLED_PLAIN, PLAIN):  # whose priors know no label
        assert set(batches_seen(lively(config), guidance_mean=1.5, guidance_variance=3)) == {2}


def test_the_unconditional_path_ends_with_the_last_guided_group() -> None:
    seen = batches_seen(lively(CONDITIONAL), guidance_mean=[0, 1.5, 0, 0])
    assert seen == [4] * (2 + 2) + [2] * (3 + 1)
    joined = batches_through(lively(CONDITIONAL), "shared_block", guidance_mean=[0, 1.5, 0, 0])
    assert joined == [4] * 3 + [2] * (1 + 3 + 1), "what joins z of the last guided group to the state is one path's"


def test_mean_guidance_skips_one_by_one_groups_in_the_papers_setting() -> None:
    mean, variance = paper_guidance(CONDITIONAL)
    assert (mean, variance) == ((0, 1.5, 1.5, 1.5), (3, 3, 3, 3))
    model, labels = lively(CONDITIONAL), torch.tensor([0, 1])
    nothing = [None] * 8
    noise = draw_noise(CONDITIONAL, range(2))
    plain = model.decode(nothing, labels, noise)
    guided = model.decode(nothing, labels, noise, guidance=Guidance(mean, variance))
    torch.testing.assert_close(guided.priors[0].mean, plain.priors[0].mean, rtol=1e-5, atol=1e-6)
    assert apart(guided.priors[0].variance, plain.priors[0].variance) > 1e-3
    with_all = model.decode(nothing, labels, noise, guidance=Guidance(1.5, 3))
    assert apart(with_all.priors[0].mean, plain.priors[0].mean) > 1e-3


def test_temperature_multiplies_the_noise() -> None:
    model, noise = lively(CONDITIONAL), draw_noise(CONDITIONAL, range(2))
    half = [0.5 * values for values in noise]
    torch.testing.assert_close(model.sample(2, noise=noise, temperature=0.5), model.sample(2, noise=half))
    lowest = [half[0], half[1], *noise[2:]]
    torch.testing.assert_close(model.sample(2, noise=noise, temperature=[0.5, 1, 1, 1]), model.sample(2, noise=lowest))


@pytest.mark.parametrize("name", EXAMPLES)
def test_decoding_all_inferred_groups_is_the_reconstruction_exactly(name: str) -> None:
    config = EXAMPLES[name]
    model, (x, labels) = lively(config), batch(config)
    low = torch.zeros(3, config.channels, 8, 8) if config.low_resolution_factor else None
    out, found = model(x, labels, low_resolution=low), model.infer(x, labels, low_resolution=low)
    decoded = model.decode(found.z, labels, low_resolution=low)
    assert decoded.mean.equal(out.mean)
    assert decoded.log_variance.equal(out.log_variance)
    torch.testing.assert_close(found.rates, out.rates)
    assert all(a.equal(b) for a, b in zip(decoded.z, found.z, strict=True))


@pytest.mark.parametrize("name", EXAMPLES)
def test_z_and_standardized_noise_convert_both_ways(name: str) -> None:
    config = EXAMPLES[name]
    model, (x, labels) = lively(config), batch(config)
    low = torch.zeros(3, config.channels, 8, 8) if config.low_resolution_factor else None
    found = model.infer(x, labels, low_resolution=low)
    drawn = model.decode([None] * len(found.z), labels, found.noise, low_resolution=low)
    for z, again in zip(found.z, drawn.z, strict=True):
        assert apart(again, z) < 1e-4
    given = model.decode(drawn.z, labels, low_resolution=low)
    for noise, again in zip(found.noise, given.noise, strict=True):
        assert apart(again, noise) < 1e-4


def test_the_first_groups_given_and_the_rest_drawn() -> None:
    model, (x, labels) = lively(CONDITIONAL), batch(CONDITIONAL)
    z, noise = model.infer(x, labels).z, draw_noise(CONDITIONAL, range(7, 10))
    decoded = model.decode([*z[:3], *[None] * 5], labels, noise)
    assert all(a.equal(b) for a, b in zip(decoded.z[:3], z[:3], strict=True))
    for value, prior, eps in zip(decoded.z[3:], decoded.priors[3:], noise[3:], strict=True):
        assert value.equal(prior.draw(eps))
    sample = model.decode([None] * 8, labels, noise)
    assert model.decode([None, None, sample.z[2], *[None] * 5], labels, noise).mean.equal(sample.mean)


def test_part_of_a_group_kept_and_the_other_drawn() -> None:
    model, (x, labels) = lively(CONDITIONAL), batch(CONDITIONAL)
    z, noise = model.infer(x, labels).z, draw_noise(CONDITIONAL, range(7, 10))
    left = [torch.arange(value.shape[3]) < max(value.shape[3] // 2, 1) for value in z]
    decoded = model.decode(z, labels, noise, keep=left)
    for value, given, keep, prior, eps in zip(decoded.z, z, left, decoded.priors, noise, strict=True):
        assert value[..., keep].equal(given[..., keep])
        assert value[..., ~keep].equal(prior.draw(eps)[..., ~keep])


def test_a_wider_picture_than_the_model_was_made_for() -> None:
    model = lively(CONDITIONAL)
    noise = draw_noise(CONDITIONAL, [1, 2], size=(16, 28))
    assert [values.shape[2:] for values in noise[::2]] == [(1, 1), (4, 7), (8, 14), (8, 14)]
    decoded = model.decode([None] * 8, torch.tensor([0, 1]), noise, size=(16, 28))
    assert decoded.mean.shape == (2, 3, 16, 28)
    square = model.decode([None] * 8, torch.tensor([0, 1]), size=(16, 16))
    assert square.mean.equal(model.sample(2, torch.tensor([0, 1])))


@pytest.mark.parametrize(("config", "size"), [(CONDITIONAL, (16, 30)), (CONDITIONAL, (0, 16)), (ABOVE_ONE, (16, 32))])
def test_a_size_that_cannot_be_generated_is_refused(config: ModelConfig, size: tuple[int, int]) -> None:
    with pytest.raises(LvaeError, match=r"generates multiples of 4"):
        lively(config).decode([None] * sum(config.groups), torch.tensor([0]), size=size)


def test_the_upsampler_reduces_its_image_itself_unless_told() -> None:
    model, (x, _) = lively(UPSAMPLER), batch(UPSAMPLER)
    low = nn.functional.interpolate(x, (8, 8), mode="bilinear", antialias=True)
    assert model(x).mean.equal(model(x, low_resolution=low).mean)
    assert not model(x).mean.equal(model(x, low_resolution=torch.zeros_like(low)).mean)
    with pytest.raises(LvaeError, match="needs low-resolution images"):
        model.sample(2)


def test_weights_for_another_number_of_resolutions_are_refused() -> None:
    with pytest.raises(LvaeError, match="guidance_mean: 5 numbers for 4 resolutions"):
        lively(CONDITIONAL).sample(1, guidance_mean=[1.5] * 5)
    with pytest.raises(LvaeError, match="temperature must be a number"):
        lively(CONDITIONAL).sample(1, temperature="hot")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["conditional", "upsampler"])
def test_recomputation_changes_neither_values_nor_gradients(name: str) -> None:
    config = EXAMPLES[name]
    x, labels = batch(config)
    results = []
    for recompute_from in (None, 8):
        model = lively(config)
        model.recompute_from = recompute_from
        out = model(x, labels)
        (out.mean.sum() + out.log_variance.sum() + out.rates.sum()).backward()
        results.append((out.mean, [parameter.grad for parameter in model.parameters()]))
    assert results[0][0].equal(results[1][0])
    for kept, computed in zip(results[0][1], results[1][1], strict=True):
        assert (kept is None) == (computed is None)
        assert kept is None or computed is None or kept.equal(computed)


def test_recomputation_keeps_fewer_activations() -> None:
    config = replace(PLAIN, ffn_ratios=(1, 2, 3, 1))
    x, _ = batch(config)
    kept = []
    for recompute_from in (None, 8):
        model = lively(config)
        model.recompute_from = recompute_from
        sizes: list[int] = []

        def count(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            model(x)
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_half_precision_leaves_rates_and_outputs_in_full() -> None:
    model, (x, labels) = lively(CONDITIONAL), batch(CONDITIONAL)
    full = model(x, labels)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x, labels)
    assert {value.dtype for value in half} == {torch.float32}
    assert half.spectral.equal(full.spectral)
    assert apart(half.mean, full.mean) < 0.1


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo's own doing
def test_a_training_step_is_one_graph_without_looking_at_values() -> None:
    config = replace(
        CONDITIONAL,
        resolution=4,
        multipliers=(1, 2),
        ffn_ratios=(0, 1),
        groups=(2, 1),
        encoder_blocks=(2, 1),
        attentions=(1, 0),
        heads=(2, 0),
    )
    model = lively(config)
    model.recompute_from = 4
    schedule = rate_schedule("shifted_exp", {"scale": 10, "shift": 1}, config.groups)
    noise, drop = draw_noise(config, range(3)), torch.tensor([True, False, False])

    def step(x: Tensor, labels: Tensor, noise: list[Tensor], drop: Tensor) -> Tensor:
        return loss(model(x, labels, noise, drop), x, schedule, 0.1, 0.1).total

    x, labels = batch(config)
    assert labels is not None
    compiled = torch.compile(step, fullgraph=True, backend="eager", dynamic=False)
    assert compiled(x, labels, noise, drop).equal(step(x, labels, noise, drop))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: m(x, torch.tensor([0])), "3 images need as many labels"),
        (lambda m, x: m(x, None, []), "8 groups need as many tensors of noise"),
        (lambda m, x: m.decode([None], torch.tensor([0])), "8 groups need as many z"),
        (lambda m, x: m.decode([None] * 8), "give noise"),
        (lambda m, x: m.sample(3, torch.tensor([0, 1])), "3 images need as many labels"),
    ],
)
def test_calls_that_do_not_fit_together_are_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call(lively(CONDITIONAL), batch(CONDITIONAL)[0])
