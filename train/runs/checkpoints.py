"""Checkpoints: whole folders that are there or are not, whatever happens while they are written.

    checkpoints = Checkpoints(run / "checkpoints", recent=3, permanent_every=50_000)
    found = checkpoints.latest()                  # None at the start; damaged ones are passed over with a warning
    if found is not None:
        weights = found.read("model")             # {name: tensor on the CPU}
        position = found.values["position"]
    ...
    checkpoints.save(step, {"model": weights, "optimizer": moments}, {"position": position})

A checkpoint is a folder `step-00005000/` with one safetensors file per group of tensors, `state.json` for plain values,
and `checksums.json`, written last. It comes about under another name and is renamed when it is complete; a folder
without valid checksums is not a checkpoint. Tensors come back bit for bit, in the dtype they had. Any number of groups
may be saved, so two networks with two optimizers are as good as one. Only one process may save.
"""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import Folder, flush_folder
from lvae.manifests.storage.names import FlatName, Sha256
from lvae.train.runs.steps import steps_in

CHECKSUMS, STATE, SUFFIX = "checksums.json", "state.json", ".safetensors"
GROUP = re.compile(r"[a-z][a-z0-9_]*")
UNFINISHED = ".unfinished-"
FULL = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "files may not grow so large",
}
DTYPES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _File:
    bytes: int
    sha256: Sha256


@dataclass(frozen=True)
class _Checksums:
    format: Literal["latent-vae-checkpoint"]
    version: Literal[1]
    step: int
    files: dict[FlatName, _File]
    self_sha256: str  # over the rest, so that a flipped bit is noticed here too


@dataclass(frozen=True)
class Checkpoint:
    """One that has been checked: every byte is as it was written, of the groups that were asked for."""

    path: Path
    step: int
    values: dict[str, Any]
    sha256: dict[str, str]  # of every file

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(sorted(path.stem for path in self.path.glob(f"*{SUFFIX}")))

    def read(self, group: str) -> dict[str, Tensor]:
        """The tensors of one group by name, on the CPU."""
        path = Folder(self.path).local(f"{group}{SUFFIX}")
        if group not in self.groups:
            raise LvaeError(self.path, f"holds {', '.join(self.groups) or 'no tensors'}, and no {group} weights")
        try:
            return safetensors.torch.load_file(path)
        except (OSError, SafetensorError) as error:
            raise LvaeError(path, f"cannot be read ({error})") from error


class Checkpoints:
    """The checkpoints of a run.

    recent: how many of the newest are kept. permanent_every: those at multiples of this many steps are kept for ever
    (0: none).
    """

    def __init__(self, folder: str | Path, recent: int = 3, permanent_every: int = 0):
        self.folder = Folder(Path(folder).parent).local(Path(folder).name)
        self._recent, self._permanent_every = max(1, recent), permanent_every

    def steps(self) -> list[int]:
        """Steps for which there is a folder, sorted; not all need be valid."""
        return steps_in(self.folder)

    def at(self, step: int) -> Path:
        return Folder(self.folder).local(f"step-{step:08d}")

    def latest(self, groups: Collection[str] | None = None) -> Checkpoint | None:
        """The newest valid one. Each that is passed over because it is damaged is named in a warning.

        groups: see `open`. LvaeError where there are some and all are damaged: a run is never begun anew over what is
        left of one.
        """
        faults = []
        for step in reversed(self.steps()):
            try:
                return self.open(step, groups)
            except LvaeError as error:
                faults.append(str(error))
                logger.warning("%s Taking the checkpoint before it.", error)
        if faults:
            raise LvaeError(self.folder, f"no checkpoint is whole ({faults[0]}) Remove this folder to begin anew")
        return None

    def open(self, step: int, groups: Collection[str] | None = None) -> Checkpoint:
        """The checkpoint of a step, every byte checked; LvaeError saying what is wrong with it.

        groups: those that will be read, whose bytes are hashed; all by default. Of the others only the sizes are
        looked at.
        """
        path = self.at(step)
        checksums = _read_checksums(path)
        if checksums.step != step:
            raise LvaeError(path, f"is that of step {checksums.step} under another name")
        for name, file in checksums.files.items():
            _check(path, name, file, name == STATE or groups is None or name.removesuffix(SUFFIX) in groups)
        values = records.loads(Folder(path).read(STATE), str(path / STATE))
        return Checkpoint(path, step, values, {name: file.sha256 for name, file in checksums.files.items()})

    def save(
        self,
        step: int,
        groups: Mapping[str, Mapping[str, Tensor]],
        values: Mapping[str, Any],
        keep: Collection[int] = (),
    ) -> Path:
        """Write a checkpoint whole, then remove those that need not be kept. keep: steps that stay besides.

        groups: names of lower-case letters, digits and underscores. values: what JSON can say, without NaN. Tensors
        may lie anywhere. LvaeError where the disk is full: all earlier checkpoints are then still there.
        """
        unfinished = self.folder / f"{UNFINISHED}{uuid.uuid4().hex}"
        try:
            self._sweep()
            unfinished.mkdir(parents=True)
            files = {name: _File(*written) for name, written in _write_files(unfinished, groups, values)}
            _write(unfinished / CHECKSUMS, [records.dumps(_sign(step, files))])
            flush_folder(unfinished)
            self._put_in_place(unfinished, self.at(step))
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            if error.errno not in FULL:
                raise
            raise self._full(step, FULL[error.errno]) from error
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        self._retire(step, keep)
        return self.at(step)

    def _full(self, step: int, why: str) -> LvaeError:
        steps = self.steps()
        last = f"the last checkpoint is that of step {steps[-1]}" if steps else "there is no checkpoint yet"
        advice = "Free some space, then run the same command again."
        return LvaeError(self.folder, f"{why} for the checkpoint of step {step}; {last}", advice)

    def _put_in_place(self, unfinished: Path, target: Path) -> None:
        """Rename; a damaged folder of that name, which a run passed over, gives way first."""
        if target.exists():
            target.rename(self.folder / f"{UNFINISHED}{uuid.uuid4().hex}")
        unfinished.rename(target)
        flush_folder(self.folder)

    def _retire(self, newest: int, keep: Collection[int]) -> None:
        """Remove what is neither recent nor permanent. Later steps than the newest are left from before a damage."""
        for step in self.steps():
            if step > newest:
                shutil.rmtree(self.at(step))
        for step in self.steps()[: -self._recent]:
            if step not in keep and not (self._permanent_every and step % self._permanent_every == 0):
                shutil.rmtree(self.at(step))
        self._sweep()

    def _sweep(self) -> None:
        """Remove what killed processes left unfinished."""
        for path in self.folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(path)


def _write_files(
    folder: Path, groups: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[int, str]]]:
    """Write every file, flushed to the disk: (name, (bytes, sha256)) of each."""
    for group, tensors in groups.items():
        if not GROUP.fullmatch(group):
            raise ValueError(f"{group!r} cannot name a group of tensors")
        name = f"{group}{SUFFIX}"
        yield name, _write_tensors(folder / name, tensors)
    yield STATE, _write(folder / STATE, [records.dumps(dict(values))])


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> tuple[int, str]:
    """A safetensors file: the length of a JSON header, the header, then the tensors' bytes.

    Written here because the library copies everything first, refuses tensors that share memory, as the views of one
    buffer do, and hides why a disk took no more.
    """
    return _write(path, _safetensors(tensors))


def _safetensors(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for tensor in tensors.values():
        dense = tensor.detach().to("cpu").contiguous()
        yield dense.reshape(-1).view(torch.uint8).numpy().data


def _write(path: Path, pieces: Iterable[bytes | memoryview]) -> tuple[int, str]:
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
        file.flush()
        os.fsync(file.fileno())
        return file.tell(), digest.hexdigest()


def _sign(step: int, files: dict[str, _File]) -> _Checksums:
    return _Checksums("latent-vae-checkpoint", 1, step, files, records.sha256_of({"step": step, "files": files}))


def _read_checksums(path: Path) -> _Checksums:
    try:
        data = Folder(path).read(CHECKSUMS)
    except OSError as error:
        raise LvaeError(path, "has no checksums, so it is not a whole checkpoint") from error
    checksums = records.parse(_Checksums, data, str(path / CHECKSUMS))
    if data != records.dumps(_sign(checksums.step, checksums.files)) or STATE not in checksums.files:
        raise LvaeError(f"{path / CHECKSUMS}", "has been damaged")
    return checksums


def _check(path: Path, name: str, file: _File, whole: bool) -> None:
    folder = Folder(path)
    size = folder.size(name)
    if size is None:
        raise LvaeError(path / name, "is missing")
    if size != file.bytes:
        raise LvaeError(path / name, f"has {size} bytes instead of {file.bytes}")
    if whole and folder.sha256(name) != file.sha256:
        raise LvaeError(path / name, "its bytes are not those that were written (checksum)")
