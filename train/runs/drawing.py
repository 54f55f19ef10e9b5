"""RUN/drawing.json: how a run's samples are drawn where nobody says, as whoever trained it found best.

Values are those of options of `lvae sample`. A run without the file is drawn as the paper does: the mean of the output,
no guidance, temperature 1.
"""

from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from lvae.manifests import records
from lvae.manifests.storage.folder import Folder

DRAWING = "drawing.json"
OutputNoise = Literal["independent", "correlated"]


@dataclass(frozen=True)
class Drawing:
    """Options of `lvae sample` that belong together: where one of them is said, none is taken from here.

    labels alone may be said otherwise: which classes are drawn is another matter than how.
    """

    format: Literal["latent-vae-drawing"]
    version: Literal[1]
    guidance_mean: str | None = records.later(None)
    guidance_variance: str | None = records.later(None)
    temperature: str = records.later("1")
    output_temperature: float = records.later(0.0)
    output_noise: Literal["independent", "correlated"] = records.later("independent")
    labels: Literal["cycle", "random", "frequencies"] | None = records.later(None)

    def options(self) -> dict[str, Any]:
        """By the names of `lvae sample`'s options."""
        names = (field.name for field in fields(self))
        return {name: getattr(self, name) for name in names if name not in ("format", "version")}

    def in_words(self, names: Collection[str]) -> str:
        """Those of these options that are not the paper's, as a person would write them."""
        plain = PLAIN.options()
        said = {name: value for name, value in self.options().items() if name in names and value != plain[name]}
        return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in said.items())


PLAIN = Drawing("latent-vae-drawing", 1)


def read_drawing(run: Path) -> Drawing:
    """What lies in a run, or PLAIN. LvaeError where the file is damaged."""
    data = Folder(run).read_if_there(DRAWING)
    return PLAIN if data is None else records.parse(Drawing, data, f"{run}/{DRAWING}")
