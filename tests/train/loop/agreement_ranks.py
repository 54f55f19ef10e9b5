"""One rank of two whose folders differ: goes on with runs as the test prepared them. Started by torchrun.

python -m torch.distributed.run --standalone --nproc-per-node 2 -m tests.train.loop.agreement_ranks DATASET OUT
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.train.devices.open import open_device
from lvae.train.fit import fit
from lvae.train.loop.session import Session, Watching
from lvae.train.runs.resolve import resolve_config
from tests.train.test_fit import OFTEN, SMALL


def flip_a_bit_after(session: Session, update: int) -> None:
    """What a broken chip does to a weight."""
    after = session.after

    def changed(step: int, *rest: Any) -> bool:
        if step == update:
            session.updater.parameters.tensors[0].view(torch.int32)[1000] ^= 1
        return after(step, *rest)

    session.after = changed  # type: ignore[method-assign]


def main(latents: str, out: str) -> None:
    torch.set_num_threads(1)
    device = open_device("cpu")
    found = {}
    for case in sorted(path.name for path in Path(out).iterdir() if path.is_dir()):
        run = Path(out, case, str(device.rank))
        settings = SMALL | {"updates": "8", "seed": str(device.rank) if case == "settings" else "0"}
        config = resolve_config(Dataset.open(latents), None, "tiny", settings)
        begin = Session.__init__

        def broken(self: Session, *arguments: Any) -> None:
            begin(self, *arguments)  # noqa: B023
            flip_a_bit_after(self, 6)

        if case == "bit" and device.rank == 1:
            Session.__init__ = broken  # type: ignore[method-assign,assignment]
        try:
            found[case] = f"step {fit(run, config, Dataset.open(latents), device, OFTEN, Watching()).step}"
        except LvaeError as error:
            found[case] = str(error)
        finally:
            Session.__init__ = begin  # type: ignore[method-assign]
    Path(out, f"{device.rank}.json").write_text(json.dumps(found))
    device.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
