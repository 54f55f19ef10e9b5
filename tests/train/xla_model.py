"""In a process of its own: a step of a small model on XLA, with and without recomputation; prints what the tests check.

python -m tests.train.xla_model
"""

import json

import torch

from lvae.train.devices.open import open_device
from lvae.train.losses import loss
from lvae.train.model import HierarchicalVAE
from lvae.train.network.noise import draw_noise
from tests.train.trainer_examples import batch, model_config


def main() -> None:
    device = open_device("xla")
    import torch_xla
    from torch_xla.debug import metrics

    upsampler = {"low_resolution_factor": 2, "multipliers": (1, 1), "ffn_ratios": (2, 2), "groups": (1, 1)}
    upsampler |= {"encoder_blocks": (1, 1), "attentions": (0, 1), "heads": (0, 2), "width": 8, "encoder_width": 8}
    small = {"width": 8, "encoder_width": 8, "groups": (1, 1, 1)}
    found = {}
    for name, config, recompute in (
        ("plain", model_config(**small), None),
        ("recomputed", model_config(**small), 4),
        ("upsampler", model_config(**upsampler), None),
    ):
        metrics.clear_all()
        model = device.place(HierarchicalVAE(config, recompute_from=recompute))
        x, noise = batch(0).latents, draw_noise(config, range(8))
        out = model(device.put(x), None, [device.put(part) for part in noise])
        schedule = device.put_whole(torch.full((len(noise),), 66.7 / len(noise)))
        total = loss(out, device.put(x), schedule, 0.5, 0.1).total
        total.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        hlo = torch_xla._XLAC._get_xla_tensors_hlo(gradients)
        device.mark_step()
        norm = torch.stack([gradient.cpu().norm() for gradient in gradients]).norm()
        found[name] = {
            "barriers": hlo.count("opt-barrier"),
            "loss": float(total.detach()),
            "norm": float(norm),
            "fallbacks": [counter for counter in metrics.counter_names() if counter.startswith("aten::")],
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
