r"""One rank of several on CPUs: three updates; prints losses, and when buckets were exchanged. Started by torchrun.

python -m torch.distributed.run --standalone --nproc-per-node 2 \
    -m tests.train.loop.exchange_ranks OUT PRECISION REDUCE_PRECISION
"""

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lvae.train.data.batches import Batch
from lvae.train.devices.open import open_device
from lvae.train.loop import parameters
from lvae.train.loop.agreement import fingerprint
from lvae.train.loop.parameters import exchanged_bytes
from lvae.train.loop.update import Updater
from lvae.train.model import HierarchicalVAE
from tests.train.trainer_examples import batch, model_config, train_config


def main() -> None:
    torch.set_num_threads(1)
    parameters.BUCKET = 4096
    precision: Any = sys.argv[2]
    reduce_precision: Any = sys.argv[3]
    device = open_device("cpu", precision, reduce_precision=reduce_precision)
    importlib.import_module("torch._dynamo")  # as counting FLOP and compiling do, after ranks have met
    begin = device.begin_average
    sent: list[int] = []

    def count(tensor: Tensor) -> Callable[[], None]:
        sent.append(tensor.nbytes)
        return begin(tensor)

    device.begin_average = count  # type: ignore[method-assign]
    training = Updater(HierarchicalVAE(model_config()), train_config(precision=precision), device)
    share, losses = 8 // device.world, []
    for number in range(3):
        halves = []
        for half in range(2):
            whole = batch(2 * number + half)
            mine = slice(device.rank * share, (device.rank + 1) * share)
            halves.append(Batch(whole.latents[mine], None, None, whole.first + device.rank * share))
        ends: list[float] = []
        sent.clear()
        handle = training.model.encoder.in_proj.weight.register_post_accumulate_grad_hook(
            lambda _, ends=ends: ends.append(time.perf_counter())
        )
        training(halves)
        handle.remove()
        losses.append(float(training.read_counts()["sums"][0]))
    exchange = training.exchange
    found = {
        "norm": float(training.read_counts()["sums"][4]),
        "losses": losses,
        "weights": float(training.parameters.tensors[0].double().square().sum()),
        "state": [fingerprint([*training.parameters.tensors, *training.adam.first, *training.adam.second])],
        "order": [] if exchange is None else [number for number, _ in exchange.began],
        "early": 0 if exchange is None else sum(began < ends[-1] for _, began in exchange.began),
        "bytes": sum(sent),
        "reckoned": [0 if exchange is None else exchange.bytes, exchanged_bytes(training.model, device)],
        "numbers": training.parameters.tensors[0].numel(),
    }
    device.close()
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    Path(sys.argv[1], f"{device.rank}.json").write_text(json.dumps({**found, "threads": threads}))


if __name__ == "__main__":
    main()
