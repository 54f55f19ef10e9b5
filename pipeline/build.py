"""The graphs, each one expression: linear, so that every engine executes them right.

Branches, tagged outputs and elements from `finish_bundle` lose data on some of Beam's runners and are not used here.
"""

from collections.abc import Sequence

import apache_beam as beam

from lvae.pipeline.beam.transforms import EncodePart, MakePictures, WriteShard


def encode(pipeline: beam.Pipeline, parts: Sequence[int], work: EncodePart) -> beam.PCollection:
    """Part numbers -> raw parts -> receipts."""
    return (
        pipeline
        | "Parts" >> beam.Create(parts, reshuffle=False)
        | "Spread parts" >> beam.Reshuffle()
        | "Encode part" >> beam.ParDo(work)
    )


def shards(pipeline: beam.Pipeline, numbers: Sequence[tuple[str, int]], work: WriteShard) -> beam.PCollection:
    """Shard numbers -> shards -> receipts."""
    return (
        pipeline
        | "Shards" >> beam.Create(numbers, reshuffle=False)
        | "Spread shards" >> beam.Reshuffle()
        | "Write shard" >> beam.ParDo(work)
    )


def pictures(pipeline: beam.Pipeline, parts: Sequence[int], work: MakePictures) -> beam.PCollection:
    """Part numbers -> pictures or features -> receipts."""
    return (
        pipeline
        | "Parts" >> beam.Create(parts, reshuffle=False)
        | "Spread parts" >> beam.Reshuffle()
        | "Make pictures" >> beam.ParDo(work)
    )
