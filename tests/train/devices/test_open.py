"""Who this process is among others, and in which precision it computes."""

import pytest

from lvae.train.devices.device import Device, Ranks
from lvae.train.devices.open import automatic_precision, first_host, ranks_of


def test_srun_alone_makes_ranks() -> None:
    said = {
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
        "SLURM_STEP_NODELIST": "gpu[003-004]",
        "SLURM_JOB_ID": "1234",
    }
    assert ranks_of(said) == Ranks(5, 8, 1, 4)
    assert (said["MASTER_ADDR"], said["MASTER_PORT"]) == ("gpu003", "21234")


def test_a_batch_script_without_srun_is_one_process() -> None:
    assert ranks_of({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) == Ranks()
    assert ranks_of({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) == Ranks()


@pytest.mark.parametrize(
    ("nodes", "first"), [("a", "a"), ("a,b", "a"), ("n[12,14-15],b", "n12"), ("n[1-2]-ib", "n1-ib"), ("n-07", "n-07")]
)
def test_the_first_host_of_a_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_a_cpu_computes_in_float32_unless_asked() -> None:
    assert automatic_precision("cpu", "training") == automatic_precision("cpu", "sampling") == "float32"


def test_a_dry_run_says_how_a_device_computes() -> None:
    assert str(Device("bfloat16", compiled=True)).endswith(", bfloat16, compiled")
    assert str(Device()).endswith(", float32")
