"""One of two processes that take themselves for the hosts of a pod: python -m tests.train.xla_pod INDEX

What is stood in for is how many hosts torch_xla sees; where they meet, and what they say to one another, is real.
"""

import json
import sys

from torch_xla import runtime

from lvae.manifests.errors import LvaeError
from lvae.train.devices.open import open_device


def fail() -> None:
    raise LvaeError("RUN", "is not here")


def main(index: int) -> None:
    runtime.process_count, runtime.process_index = lambda: 2, lambda: index
    device = open_device("xla")
    found = {
        "main": device.is_main,
        "world": device.world,
        "from_main": device.from_main(7 + index),
        "from_all": device.from_all(index),
        "stop": [device.on_any_rank(index == 1), device.on_any_rank(False)],
    }
    try:
        device.together(fail if index == 1 else lambda: None)
    except LvaeError as error:
        found["together"] = str(error)
    device.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
