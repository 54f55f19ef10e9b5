"""The log of a run in TensorBoard, where that is installed, and in Weights & Biases, where one asks for it."""

import importlib.util
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import Folder
from lvae.train.runs.metrics_log import Board

TENSORBOARD = "tensorboard"
WANDB_ID = "wandb/id.txt"  # in RUN: what it is called there, wherever RUN is moved


class TensorBoard:
    """RUN/tensorboard, without what came after the step that a run goes on from."""

    def __init__(self, run: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(Folder(run).local(TENSORBOARD)), purge_step=step + 1)

    def write(self, step: int, line: Mapping[str, float]) -> None:
        for name, value in line.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of a project there, taken up again where RUN goes on. Its own settings hold, such as WANDB_MODE=offline."""

    def __init__(self, run: Path, project: str, config: Mapping[str, Any]):
        import wandb

        known = Folder(run).read_if_there(WANDB_ID)
        name = secrets.token_hex(4) if known is None else known.decode().strip()
        settings = wandb.Settings(console="off", save_code=False, quiet=True)
        init: Any = wandb.init
        where = {"project": project, "id": name, "name": run.name, "dir": str(run), "resume": "allow"}
        try:
            self._run = init(**where, config=dict(config), settings=settings)
        except (wandb.Error, OSError) as error:
            advice = "Say 'wandb login' first, or set WANDB_MODE=offline."
            raise LvaeError(f"--wandb {project}", f"wandb does not begin ({error})", advice) from error
        self._run.define_metric("update")
        self._run.define_metric("*", step_metric="update")  # lines of a run that goes back count anew, by their update
        if known is None:
            Folder(run).write(WANDB_ID, f"{name}\n".encode())

    def write(self, step: int, line: Mapping[str, float]) -> None:
        self._run.log({**line, "update": step})

    def close(self) -> None:
        self._run.finish()


def check_wandb(project: str | None) -> None:
    """LvaeError where it is asked for and not there."""
    if project is not None and importlib.util.find_spec("wandb") is None:
        advice = "Install the extra: pip install 'latent-vae[wandb]'."
        raise LvaeError(f"--wandb {project}", "wandb is not installed", advice)


def open_boards(run: Path, step: int, project: str | None = None, config: object = None) -> list[Board]:
    """Those of a run that goes on from this step. project: of Weights & Biases; None: without."""
    boards: list[Board] = []
    if importlib.util.find_spec("tensorboard") is not None:
        boards.append(TensorBoard(run, step))
    if project is not None:
        boards.append(WeightsAndBiases(run, project, records.plain(config)))
    return boards
