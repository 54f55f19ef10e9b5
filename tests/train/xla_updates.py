"""In a process of its own: updates of one, two and four micro-batches on XLA; prints programs and losses as JSON.

python -m tests.train.xla_updates
"""

import json

import numpy as np
import torch

from lvae.manifests.seeds import derive
from lvae.train.data.batches import Batch
from lvae.train.devices import device as devices
from lvae.train.devices.open import open_device
from lvae.train.devices.threefry import counted_normal, key_of
from lvae.train.loop.update import Updater
from lvae.train.model import HierarchicalVAE
from tests.train.trainer_examples import batch, model_config, train_config

UPDATES, LATENTS = 3, 16  # of an update, in each kind of portions


def main() -> None:
    device = open_device("xla")
    from torch_xla.debug import metrics

    def programs() -> int:
        data = metrics.metric_data("CompileTime")
        return 0 if data is None else int(data[0])

    found: dict[str, object] = {}
    config = model_config(width=8, encoder_width=8, groups=(1, 1, 1))
    for portions in (2, 4, 1):  # the last has micro-batches of another size
        size = 4 if portions > 1 else 8
        training = train_config(batch=size, accumulate=portions)
        updater = Updater(HierarchicalVAE(config), training, device)
        seen = [programs()]
        for number in range(UPDATES):
            batches = []
            for portion in range(portions):
                latents = batch(number).latents[portion * 4 % 8 :][:size]
                batches.append(Batch(device.put(latents), None, None, 8 * number + portion * 4 % 8))
                device.mark_step()
            updater(batches)
            seen.append(programs())
        counts = updater.read_counts()
        found[str(portions)] = {"programs": seen, "sums": (counts["sums"] / counts["summed"]).tolist()}
    noise = device.normals(3, 4, 8, 4001).cpu() - counted_normal(key_of(derive(3, "noise", 0)), 8, 4001, 4)
    found["noise"] = float(noise.abs().max())
    devices.UPLOADED = 1 << 10
    source = torch.randn(100, 4, 2, 2).half()

    def read(first: int, rows: torch.Tensor) -> None:
        rows.copy_(source[first : first + len(rows)])

    before = programs()
    whole = device.upload(source.shape, source.dtype, read)
    found["upload"] = {"equal": bool(np.array_equal(whole.cpu(), source)), "programs": programs() - before}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
