"""No graph that some engine executes wrongly is ever submitted."""

from collections.abc import Callable, Iterator

import apache_beam as beam
import pytest
from apache_beam.transforms.util import BatchElements, GroupIntoBatches

from lvae.encode.feeding.settings import Feeding
from lvae.pipeline.beam import graphs
from lvae.pipeline.beam.graphs import decode, do_step, encode
from lvae.pipeline.beam.step_transform import DoStep
from lvae.pipeline.beam.transforms import EncodeParts, Job, MakePictures
from lvae.pipeline.beam.work import StepsToDo

JOB = Job("/a/dataset", "0" * 64, "attempt", "latent-vae", None)


def test_our_graphs_are_chains() -> None:
    for make in (
        lambda pipeline: encode(pipeline, [(0, 3), (3, 5)], EncodeParts(JOB, Feeding(("cpu",)))),
        lambda pipeline: decode(pipeline, [(0, 2)], MakePictures(JOB, ("cpu",))),
        lambda pipeline: do_step(pipeline, [(0, 2)], DoStep(JOB, StepsToDo("/a", "/a", "fold", "", "0" * 64, (), ""))),
    ):
        pipeline = beam.Pipeline()
        make(pipeline)
        graphs.check(pipeline)


class Last(beam.DoFn):  # type: ignore[misc]
    """Elements that come out at the end of a bundle."""

    def process(self, element: int) -> None:
        self.last = element

    def finish_bundle(self) -> Iterator[int]:
        yield self.last


def twice(numbers: beam.PCollection) -> None:
    numbers | "one" >> beam.Map(abs)
    numbers | "another" >> beam.Map(abs)


def tagged(numbers: beam.PCollection) -> None:
    numbers | beam.Map(lambda number: beam.pvalue.TaggedOutput("odd", number)).with_outputs("odd", main="even")


def side_input(numbers: beam.PCollection) -> None:
    other = numbers.pipeline | "other" >> beam.Create([1])
    numbers | beam.Map(lambda number, more: (number, more), beam.pvalue.AsList(other))


UNSAFE: dict[str, Callable[[beam.PCollection], object]] = {
    "two branches": twice,
    "tagged outputs": tagged,
    "finish_bundle": lambda numbers: numbers | beam.ParDo(Last()),
    "BatchElements": lambda numbers: numbers | BatchElements(16, 16),
    "GroupIntoBatches": lambda numbers: numbers | beam.Map(lambda n: (n, n)) | GroupIntoBatches(2),
    "two beginnings": lambda numbers: numbers.pipeline | "again" >> beam.Create([1]),
    "side inputs": side_input,
    "reading text": lambda numbers: numbers.pipeline | beam.io.ReadFromText("/a/file", validate=False),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_what_loses_data_on_some_engine_is_refused(name: str) -> None:
    pipeline = beam.Pipeline()
    UNSAFE[name](pipeline | "numbers" >> beam.Create([1, 2, 3], reshuffle=False))
    with pytest.raises(graphs.UnsafeGraphError):
        graphs.check(pipeline)
