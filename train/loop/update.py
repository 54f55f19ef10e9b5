"""One update: gradients of its micro-batches, the decision to apply them, the optimizer, the averages, the vectors.

Every decision is a tensor, so nothing waits for the device, and an update that is skipped runs the same operations.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from lvae.train.config import TrainConfig
from lvae.train.data.batches import Batch
from lvae.train.devices.device import Device
from lvae.train.devices.lanes import Lanes
from lvae.train.loop.adam import Adam, learning_rate
from lvae.train.loop.counts import MEASURED, count_update, decide, first_counts
from lvae.train.loop.parameters import Parameters
from lvae.train.loop.redrawn_vectors import redraw_singular_vectors
from lvae.train.loop.replay import Replay
from lvae.train.losses import loss, rate_schedule
from lvae.train.model import HierarchicalVAE, Output
from lvae.train.network.noise import noise_shapes
from lvae.train.runs.run import check_weights


class Updater:
    """A model being trained on a device: its weights, their average, the optimizer's moments, and counts."""

    def __init__(self, model: HierarchicalVAE, config: TrainConfig, device: Device):
        self.model, self.config, self.device = device.place(model), config, device
        flat = device.kind != "xla"
        rounds = flat and device.precision == "bfloat16"
        self.parameters = Parameters(self.model, flat, *(self.model.names_to_round() if rounds else ()))
        self.model.keep_masters(self.parameters.masters)
        self._penalty: Tensor | None = None
        if rounds:
            self._penalty = penalty = device.put_whole(torch.zeros(()))
            self.model.penalty = lambda: penalty
        self.exchange = self.parameters.exchange(device)
        moments = torch.bfloat16 if config.moments == "bfloat16" else None
        self.adam = Adam(config, self.parameters.like(moments), self.parameters.like(moments), fused=flat)
        self.average = self.parameters.copies()
        self._more_averages = {group: self.parameters.copies() for group in config.averages if group != "ema"}
        shape = model.config
        self._schedule = device.put_whole(
            rate_schedule(config.rate_schedule, config.rate_arguments, shape.groups, config.rate_lower)
        )
        self._noise_shapes = noise_shapes(shape)
        self._noise_sizes = [z * height * width for z, height, width in self._noise_shapes]
        self._weigh = device.compile(self._weigh_output)
        device.compile_layers(self.model.layers_to_compile())
        self.model.one_layout = device.compiled
        self._portions: int | Tensor = 1
        self._compiles = flat and not rounds  # whether the first pass is still to come, which has gradients to hide
        self._pass: Callable[..., Tensor] = self._micro_batch
        if (record := device.recorder()) is not None:
            sums = self.parameters.gradients()
            self._pass = Replay(self._micro_batch, sums, record, self.parameters.forget)
        self._threshold = config.skip_threshold * shape.channels * shape.resolution**2
        counts = first_counts(self._threshold, len(self._noise_shapes))
        self.counts = {name: device.put_scalar(value) for name, value in counts.items()}
        self._keep = 1
        self._lanes = Lanes(self.model, device.split(config.batch))
        self._sums = [self.parameters.lend(twin) for twin in self._lanes.models[1:]]
        if self._sums:
            self._pass, self._compiles = self._side_by_side, False
        # On XLA a first micro-batch runs the program of all others: it adds to sums that are there, and are zero.
        self._nothing = None if flat else device.put_whole(torch.zeros(len(MEASURED) - 2 + len(self._noise_shapes)))
        if not flat:
            self.parameters.clear_gradients()
        device.mark_step()

    @property
    def averages(self) -> dict[str, list[Tensor]]:
        """By the names of their groups in a checkpoint."""
        return {"ema": self.average, **self._more_averages}

    def __call__(self, batches: Sequence[Batch]) -> None:
        """One update from its micro-batches. On XLA each of them runs the same program, and what follows another."""
        portions = len(batches) * len(self._lanes.models)
        measured, self._portions = self._nothing, self.device.divisor(portions)
        if self.config.singular_vectors == "redrawn":
            redraw_singular_vectors(
                self.model, self.device, self.config.seed, batches[0].first // self.config.update_size
            )
        if self.parameters.flat and not self._compiles:
            self.parameters.clear_gradients()
        if self._penalty is not None:
            self._penalize(self._penalty)
        for number, batch in enumerate(batches, 1):
            noise = self.device.normals(self.config.seed, batch.first, len(batch.latents), sum(self._noise_sizes))
            inputs = batch.latents, batch.labels, batch.dropped, noise
            if self.exchange is not None and number == len(batches):
                self.exchange.arm()
                found = self._micro_batch(*inputs)
            else:
                found = self._pass(*inputs)
            measured = found if measured is None else measured + found
            self.device.mark_step()
        assert measured is not None
        with torch.no_grad():
            self._apply(measured)

    def _micro_batch(self, latents: Tensor, labels: Tensor | None, dropped: Tensor | None, noise: Tensor) -> Tensor:
        """Forward and backward; what is written down, as a share of the update: see `_weigh_output`."""
        return self._compute(self.model, latents, labels, dropped, noise)

    def _side_by_side(self, *inputs: Tensor | None) -> Tensor:
        """The same in equal slices, whose sums are added in their order."""
        for sums in self._sums:
            sums.zero_()
        found = self._lanes(self._compute, inputs)
        for sums in self._sums:
            self.parameters.gradients()[0].add_(sums)
        return torch.stack(found).sum(0)

    def _compute(
        self, model: HierarchicalVAE, latents: Tensor, labels: Tensor | None, dropped: Tensor | None, noise: Tensor
    ) -> Tensor:
        parts = noise.split(self._noise_sizes, 1)  # type: ignore[no-untyped-call]
        pieces = [part.unflatten(1, shape) for part, shape in zip(parts, self._noise_shapes, strict=True)]
        with self.device.autocast():
            total, found = self._weigh(model(latents, labels, pieces, dropped), latents)
        if self._compiles:  # a compiler looks long at gradients that are views
            self.parameters.clear_gradients()
            self._compiles = False
        (total / self._portions).backward()  # type: ignore[no-untyped-call]
        if self.exchange is None or not self.exchange.armed:
            self.parameters.collect()
        return found / self._portions

    def _penalize(self, kept: Tensor) -> None:
        """The penalty of the float32 weights, and its gradient: once an update, since no latents enter it."""
        masters, penalty = self.parameters.masters, self.model.spectral()
        found = torch.autograd.grad(self.config.spectral_weight * penalty, list(masters.values()))
        self.parameters.add(dict(zip(masters, found, strict=True)))
        kept.copy_(penalty.detach())

    def _weigh_output(self, out: Output, latents: Tensor) -> tuple[Tensor, Tensor]:
        """What to minimize, a scalar, and what is written down of it: (4 + L,) as in MEASURED, then rates by group."""
        config = self.config
        losses = loss(
            out, latents, self._schedule, config.sigma_q, config.spectral_weight, config.rate_upper, config.rate_floor
        )
        rates = out.rates.detach().mean(1)
        first = torch.stack([losses.total, losses.reconstruction, rates.sum(), losses.spectral]).detach()
        return losses.total, torch.cat([first, rates])

    def _apply(self, measured: Tensor) -> None:
        counts, config = self.counts, self.config
        gradients = self.parameters.gradients()
        if self.exchange is None:
            self.device.average(gradients)
        else:
            self.exchange.finish()
        self.device.average([measured])
        norm = _norm(gradients)
        decision = decide(norm, measured[0], counts)
        rate = learning_rate(config, counts["applied"].float())
        if config.gradient_clip is not None:
            for gradient in gradients:
                gradient.mul_((config.gradient_clip / norm).clamp(max=1.0))
        if config.singular_vectors == "kept":
            self.model.move_singular_vectors(decision.applied)
        self.adam.step(self.parameters.tensors, gradients, rate, decision.applied, counts["applied"].float())
        self.parameters.refresh()
        for group, decay in config.averages.items():
            weight = averaging_weight(config, decay, counts["applied"]) * decision.applied.float()
            for average, weights in zip(self.averages[group], self.parameters.tensors, strict=True):
                average.lerp_(weights, weight)
        values = torch.cat([measured[:4], norm[None], rate[None], measured[4:]])
        self.counts = count_update(counts, decision, norm, values, self.device.operand(self._keep), self._threshold)
        self._keep = 1
        if not self.parameters.flat:
            self.parameters.clear_gradients()
        self.device.mark_step()

    # --- the whole state, for checkpoints ---

    def groups(self) -> dict[str, dict[str, Tensor]]:
        """Every tensor that the next update depends on."""
        buffers = dict(self.model.named_buffers())
        first, second = (self.parameters.named(moments) for moments in (self.adam.first, self.adam.second))
        return {
            "model": {**self.parameters.named(self.parameters.tensors), **buffers},
            **{group: {**self.parameters.named(kept), **buffers} for group, kept in self.averages.items()},
            "optimizer": {
                **{f"first.{name}": moment for name, moment in first.items()},
                **{f"second.{name}": moment for name, moment in second.items()},
                **{f"counts.{name}": count for name, count in self.counts.items()},
                "counts.keep": torch.tensor(self._keep),
            },
        }

    def snapshot(self) -> dict[str, dict[str, Tensor]]:
        """The same as copies on the CPU, which later updates leave alone. Waits for the device."""
        copies: dict[int, tuple[Tensor, Tensor]] = {}

        def copy(tensor: Tensor) -> Tensor:
            """Pieces of one flat tensor are copied together, and stay its pieces."""
            whole = tensor if tensor._base is None else tensor._base
            if id(whole) not in copies:
                copies[id(whole)] = whole, whole.detach().to("cpu", copy=True)
            found = copies[id(whole)][1]
            if whole is tensor:
                return found
            return found.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

        return {
            group: {name: copy(tensor) for name, tensor in tensors.items()} for group, tensors in self.groups().items()
        }

    @torch.no_grad()
    def restore(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over what `groups` once gave, saved on whatever device."""
        for name, tensors in self.groups().items():
            found = groups["ema" if name.startswith("ema") and name not in groups else name]  # a new average
            if found.keys() != tensors.keys():
                raise ValueError(f"{name}: {min(found.keys() ^ tensors.keys())} is in one of the two only")
            for key, tensor in tensors.items():
                if key != "counts.keep":
                    tensor.copy_(found[key])
        self._keep = int(groups["optimizer"]["counts.keep"])
        self.parameters.refresh()
        self.device.mark_step()

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor], where: str) -> None:
        """Begin with other weights, and the averages with them. LvaeError where they are another model's."""
        own = self.groups()["model"]
        check_weights(own, weights, where)
        for name, tensor in own.items():
            tensor.copy_(weights[name])
        self.parameters.refresh()
        self.start_average()
        self.device.mark_step()

    def reset_threshold(self) -> None:
        """Skip updates by the configured threshold, whatever it had become."""
        self.counts["threshold"].fill_(self._threshold)

    def start_average(self) -> None:
        """Begin the average anew with the weights as they are."""
        for kept in self.averages.values():
            for average, weights in zip(kept, self.parameters.tensors, strict=True):
                average.copy_(weights)

    def read_counts(self) -> dict[str, Tensor]:
        """The counts on the CPU. Waits for the device."""
        return {name: self.device.fetch(count) for name, count in self.counts.items()}

    def clear_sums(self) -> None:
        """With the next update; were other tensors put in their place now, XLA would compile that update anew."""
        self._keep = 0

    @contextmanager
    def using_average(self) -> Iterator[None]:
        """The model computes with the average of its weights inside; afterwards it has its own, bit for bit."""
        with torch.no_grad():
            own = self.parameters.copies()
            try:
                self._set(self.average)
                yield
            finally:
                self._set(own)

    def _set(self, values: Sequence[Tensor]) -> None:
        for tensor, value in zip(self.parameters.tensors, values, strict=True):
            tensor.copy_(value)
        self.parameters.refresh()
        self.device.mark_step()


def averaging_weight(config: TrainConfig, decay: float, applied: Tensor) -> float | Tensor:
    """How much of the weights enters their average, after so many updates."""
    if not config.ema_warm_up:
        return 1 - decay
    return 1 - ((1.0 + applied) / (10.0 + applied)).clamp(max=decay)


def _norm(gradients: Sequence[Tensor]) -> Tensor:
    """The L2 norm of all gradients together, a scalar."""
    norms: list[Tensor] = [torch.linalg.vector_norm(gradient) for gradient in gradients]
    return norms[0] if len(norms) == 1 else torch.stack(norms).square().sum().sqrt()
