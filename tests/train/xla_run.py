"""A whole run on XLA, in a process of its own: python -m tests.train.xla_run DATASET RUN UPDATES KEY=VALUE...

Prints the compilations and the transfers to the host so far, at the beginning of what follows every update, as JSON.
"""

import json
import sys
from pathlib import Path

from lvae.manifests.dataset import Dataset
from lvae.train.devices.open import open_device
from lvae.train.fit import fit
from lvae.train.loop.session import Execution, Watching
from lvae.train.runs.resolve import resolve_config


def main(dataset: str, run: str, updates: str, *settings: str) -> None:
    device = open_device("xla")
    import torch_xla.debug.metrics as counters

    def samples(name: str) -> int:
        data = counters.metric_data(name)
        return 0 if data is None else int(data[0])

    seen: list[tuple[int, int]] = []
    watching = Watching(
        update=lambda step: seen.append((samples("CompileTime"), samples("TransferFromDeviceTime"))),
        preview=lambda step, latents: None,
    )
    opened = Dataset.open(dataset)
    config = resolve_config(opened, None, "tiny", dict(item.split("=") for item in (*settings, f"updates={updates}")))
    fit(Path(run), config, opened, device, Execution(log=4, save=8, validate=8, preview=8), watching)
    fallbacks = [name for name in counters.counter_names() if name.startswith("aten::")]
    print(json.dumps({"device": device.describe(), "seen": seen, "fallbacks": fallbacks}))


if __name__ == "__main__":
    main(*sys.argv[1:])
