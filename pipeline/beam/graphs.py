"""Is a graph one that every engine executes rightly?

Beam's Dask runner ends with success and has lost data where a collection is used twice, outputs are tagged, or elements
come out of `finish_bundle` (tried with Beam 2.77). So no graph is submitted, to whatever engine, that is not a chain of
these steps.
"""

from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.runners.common import DoFnSignature

from lvae.pipeline.beam.step_transform import DoStep
from lvae.pipeline.beam.transforms import EncodeParts, MakePictures
from lvae.pipeline.beam.work import Range

CHAINABLE = (beam.Create, beam.Reshuffle, beam.ParDo)


class UnsafeGraphError(RuntimeError):
    """A graph that some engine would execute wrongly: a bug of ours."""


def check(pipeline: beam.Pipeline) -> None:
    """Raises UnsafeGraphError unless the pipeline is one chain from a Create."""
    pipeline.visit(_Chain())


class _Chain(PipelineVisitor):  # type: ignore[misc]
    """Walks the steps as they were written; what Create and Reshuffle are made of is the engine's affair."""

    def __init__(self) -> None:
        self._used: set[Any] = set()
        self._inside: AppliedPTransform | None = None
        self._creates = 0

    def enter_composite_transform(self, node: AppliedPTransform) -> None:
        if self._inside is None and isinstance(node.transform, CHAINABLE):
            self._step(node)
            self._inside = node

    def leave_composite_transform(self, node: AppliedPTransform) -> None:
        if self._inside is node:
            self._inside = None

    def visit_transform(self, node: AppliedPTransform) -> None:
        if self._inside is None:
            self._step(node)

    def _step(self, node: AppliedPTransform) -> None:
        name, transform = node.full_label, node.transform
        if not isinstance(transform, CHAINABLE):
            raise UnsafeGraphError(f"{name}: {type(transform).__name__} is no step of a chain")
        self._creates += isinstance(transform, beam.Create)
        if self._creates != 1:
            raise UnsafeGraphError(f"{name}: a chain has one beginning")
        if len(node.outputs) != 1 or None not in node.outputs or node.side_inputs:
            raise UnsafeGraphError(f"{name}: more than one input or output")
        for collection in node.inputs:
            if collection in self._used:
                raise UnsafeGraphError(f"{name}: its input goes to another step as well")
            self._used.add(collection)
        if isinstance(transform, beam.ParDo) and _keeps_elements(transform.fn):
            raise UnsafeGraphError(f"{name}: keeps elements back, which are lost")


def _keeps_elements(fn: beam.DoFn) -> bool:
    """For the end of a bundle, or in state."""
    return type(fn).finish_bundle is not beam.DoFn.finish_bundle or DoFnSignature(fn).is_stateful_dofn()


def encode(pipeline: beam.Pipeline, parts: Sequence[Range], work: EncodeParts) -> beam.PCollection:
    """Ranges of part numbers -> raw parts -> receipts. A range becomes parts in the worker alone."""
    return (
        pipeline
        | "Parts" >> beam.Create(parts, reshuffle=False)
        | "Spread parts" >> beam.Reshuffle()
        | "Encode parts" >> beam.ParDo(work)
    )


def decode(pipeline: beam.Pipeline, parts: Sequence[Range], work: MakePictures) -> beam.PCollection:
    """Ranges of part numbers -> pictures or features -> receipts."""
    return (
        pipeline
        | "Parts" >> beam.Create(parts, reshuffle=False)
        | "Spread parts" >> beam.Reshuffle()
        | "Make pictures" >> beam.ParDo(work)
    )


def do_step(pipeline: beam.Pipeline, numbers: Sequence[Range], work: DoStep) -> beam.PCollection:
    """Ranges of numbers -> a step done with each: groups folded, shards written, parts and shards checked."""
    return (
        pipeline
        | "Numbers" >> beam.Create(numbers, reshuffle=False)
        | "Spread numbers" >> beam.Reshuffle()
        | "Do step" >> beam.ParDo(work)
    )
