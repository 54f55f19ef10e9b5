"""Memory that is kept is not faulted in anew."""

import os
import subprocess
import sys

import pytest

from lvae.manifests.machine import KEEPING

FAULTS = """
import resource
import sys

from lvae.manifests.machine import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else False

def work():
    for _ in range(20):
        b'x' * 48_000_000

work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(what: str, **more: str) -> tuple[bool, int]:
    environment = {name: value for name, value in os.environ.items() if name not in KEEPING} | more
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, what], env=environment, capture_output=True, text=True, check=True
    )
    kept, count = done.stdout.split()
    return kept == "1", int(count)


def test_kept_memory_costs_no_page_faults() -> None:
    kept, few = faults("keep")
    if not kept:
        pytest.skip("another C library than glibc")
    assert few < faults("let go")[1] / 2


def test_what_the_user_has_set_stays() -> None:
    assert faults("keep", MALLOC_ARENA_MAX="2")[0] is False
