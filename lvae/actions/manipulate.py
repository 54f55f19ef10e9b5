"""What `lvae traverse`, `interpolate`, `outpaint`, `depths` and `inspect RUN` do: open, call the library, write."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from lvae.actions.output import print_json
from lvae.encode.devices import choose_device
from lvae.evaluate.figures.drawing import png
from lvae.evaluate.manipulation import figures as manipulated
from lvae.evaluate.manipulation.figures import Shown
from lvae.evaluate.manipulation.loaded_run import Studio, Subject, from_dataset, from_files, open_dataset
from lvae.evaluate.manipulation.operations import Guide, Margins, Sweep, steps_of
from lvae.evaluate.manipulation.rates import Rates, measure
from lvae.evaluate.pictures.decode import positions_of, write_whole
from lvae.evaluate.samples.options import guidance_weights, labels_of
from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import is_dataset
from lvae.pipeline.progress.console import Bar, say
from lvae.train.runs.checkpoints import Checkpoints
from lvae.train.runs.metrics_log import read_metrics
from lvae.train.runs.run import CHECKPOINTS, RunConfig, read_run

MOST_PICTURES = 1024  # in one figure


def run_traverse(run: Path, sources: Sequence[str], out: Path, asked: dict[str, Any]) -> None:
    studio = _studio(run, asked)
    label, guide = _label(studio, asked["label"]), _guide(studio, asked)
    values = _values(asked)
    rates = None
    if asked["channels"] is None:
        rates = _measured(studio, _one_dataset(sources, "or name two channels: --channels 0:3,1:5"), asked)
        first, second = manipulated.most_informative(rates)
    else:
        first, second = _channels(asked["channels"])
    subject = None
    if studio.model.config.low_resolution_factor is not None:
        subject = _subjects(studio, sources, asked)[0]
    across, down = Sweep(*first, values), Sweep(*second, values)
    with Bar("traversing", len(values) ** 2, "samples") as bar:
        shown = manipulated.show_traversal(
            studio,
            across,
            down,
            asked["seed"],
            asked["index"],
            label,
            subject,
            guide,
            asked["temperature"],
            rates,
            bar.advance,
        )
    what = f"channel {first[1]} of group {first[0]} across, channel {second[1]} of group {second[0]} down"
    _write(shown, out, asked["arrays"], f"{what}, {values[0]:g} to {values[-1]:g}")


def run_interpolate(run: Path, sources: Sequence[str], out: Path, asked: dict[str, Any]) -> None:
    studio = _studio(run, asked)
    subjects = _subjects(studio, sources, asked)
    pairs = manipulated.pairs_of(len(subjects), asked["pairs"])
    space = None if asked["space"] == "auto" else asked["space"]
    _not_too_many(len(pairs) * (asked["steps"] + 2))
    with Bar("interpolating", len(pairs) * (asked["steps"] + 2), "pictures") as bar:
        shown = manipulated.show_interpolation(
            studio,
            subjects,
            pairs,
            asked["steps"],
            asked["seed"],
            space,
            asked["path"],
            asked["posterior"] == "mean",
            bar.advance,
        )
    _write(shown, out, asked["arrays"], f"{len(pairs)} pairs of {len(subjects)} images, {asked['steps']} steps between")


def run_outpaint(run: Path, sources: Sequence[str], out: Path, asked: dict[str, Any]) -> None:
    studio = _studio(run, asked)
    subjects = _subjects(studio, sources, asked)
    margins = Margins(asked["left"], asked["right"], asked["top"], asked["bottom"])
    if not any(asked[side] is not None for side in ("left", "right", "top", "bottom")):
        margins = Margins(right=studio.model.config.resolution)
    else:
        margins = Margins(*(asked[side] or 0 for side in ("left", "right", "top", "bottom")))
    _not_too_many(len(subjects) * asked["draws"])
    with Bar("outpainting", len(subjects) * asked["draws"], "pictures") as bar:
        shown = manipulated.show_outpainting(
            studio,
            subjects,
            margins,
            asked["draws"],
            asked["seed"],
            _guide(studio, asked),
            asked["posterior"] == "mean",
            bar.advance,
        )
    size = shown.arrays["latents"].shape[-2:]
    _write(shown, out, asked["arrays"], f"{len(subjects)} images, outpainted to {size[0]}x{size[1]} latents")


def run_depths(run: Path, sources: Sequence[str], out: Path, asked: dict[str, Any]) -> None:
    if asked["beside"] and asked["nats"] is None:
        raise LvaeError("--beside", "belongs to --nats FILE.png, the chart that it adds a model to", "Give both.")
    studio = _studio(run, asked)
    subjects = _subjects(studio, sources, asked)
    rates = None
    if len(sources) == 1 and is_dataset(sources[0]):
        rates = _measured(studio, sources[0], asked)
    if asked["nats"] is not None and rates is None:
        raise LvaeError("--nats", "rates are measured over a DATASET, and images were given", "Give a dataset.")
    config = studio.model.config
    columns = (sum(config.groups) if asked["every_group"] else len(steps_of(config))) + 1
    _not_too_many(len(subjects) * columns)
    with Bar("decoding", len(subjects) * columns, "pictures") as bar:
        shown = manipulated.show_depths(
            studio,
            subjects,
            asked["every_group"],
            asked["seed"],
            _guide(studio, asked),
            asked["posterior"] == "mean",
            rates,
            bar.advance,
        )
    _write(shown, out, asked["arrays"], f"{len(subjects)} images, {columns} depths each")
    if asked["nats"] is not None and rates is not None:
        panels = [(f"{run.name} ({studio.config.preset})", studio.config.dataset.image.size, rates)]
        for other, dataset in asked["beside"]:
            beside = _studio(Path(other), {**asked, "decoder": None})
            found = _measured(beside, dataset, asked)
            panels.append((f"{Path(other).name} ({beside.config.preset})", beside.config.dataset.image.size, found))
        write_whole(asked["nats"], manipulated.draw_rates(panels))
        click.echo(f"{asked['nats']}: nats by resolution")


def run_inspect(run: Path, dataset: str | None, asked: dict[str, Any]) -> None:
    """What a run is, and its rates: measured over a dataset, or the last ones that training wrote down."""
    config, found = read_run(run), Checkpoints(run / CHECKPOINTS).latest()
    step = None if found is None else found.step
    description = {"run": records.plain(config), "update": step}
    if dataset is not None:
        studio = _studio(run, {**asked, "decoder": None})
        rates = _measured(studio, dataset, asked)
        if asked["as_json"]:
            print_json({**description, "rates": rates.as_dict()})
        else:
            click.echo(f"{_about(run, config, step)}\n\n{rates.table()}")
        return
    lines = read_metrics(run)
    per_group = lines[-1]["rate_per_group_nats"] if lines else None
    if asked["as_json"]:
        print_json({**description, "rate_per_group_nats": per_group})
        return
    click.echo(_about(run, config, step))
    if per_group is not None:
        click.echo(f"\nrate of each group in the log, update {lines[-1]['step']}, nats an image")
        for number, (resolution, nats) in enumerate(zip(config.model.group_resolutions, per_group, strict=True)):
            click.echo(f"{number:>5}  {f'{resolution}x{resolution}':>7}  {nats:9.2f}" if nats is not None else "")
    say(f"with a dataset, rates by channel and active units are measured: lvae inspect {run} DATASET")


def _about(run: Path, config: RunConfig, step: int | None) -> str:
    model, data = config.model, config.dataset
    groups = ", ".join(f"{count} of {r}x{r}" for r, count in zip(model.resolutions, model.groups, strict=True))
    shape = "x".join(map(str, data.shape))
    prior = "hierarchical" if model.hierarchical_prior else "N(0, I)"
    lines = [
        f"{run}: {config.preset}, " + ("no checkpoint yet" if step is None else f"update {step}"),
        f"  latents      {shape}, of {data.autoencoder.name}, images of {data.image.size} px",
        f"  groups       {sum(model.groups)}: {groups}",
        f"  prior        {prior}, {f'{model.classes} classes' if model.classes else 'unconditional'}",
        f"  attention    {model.attention}",
    ]
    return "\n".join(lines)


def _studio(run: Path, asked: dict[str, Any]) -> Studio:
    studio = Studio.open(run, asked["weights"], asked["decoder"], choose_device(asked["device"]))
    if studio.network is None:
        say(f"warning: {run} has no weights of its first stage; pictures are latents in false colours")
    return studio


def _one_dataset(sources: Sequence[str], otherwise: str) -> str:
    if len(sources) != 1 or not is_dataset(sources[0]):
        raise LvaeError("rates are measured over a dataset", f"give one DATASET after RUN, {otherwise}")
    return sources[0]


def _measured(studio: Studio, path: str, asked: dict[str, Any]) -> Rates:
    dataset = open_dataset(studio, path, asked["split"])
    count = min(len(dataset), asked["images"])
    with Bar("measuring rates", count, "images") as bar:
        return measure(studio, dataset, count, asked["seed"], bar.advance)


def _subjects(studio: Studio, sources: Sequence[str], asked: dict[str, Any]) -> list[Subject]:
    """Images of one dataset, or image files."""
    if not sources:
        raise LvaeError("", "name a DATASET after RUN, or image files")
    if len(sources) == 1 and is_dataset(sources[0]):
        dataset = open_dataset(studio, sources[0], asked["split"])
        text = asked.get("indices") or f"0-{min(4, len(dataset)) - 1}"
        return from_dataset(studio, dataset, positions_of(text, len(dataset), None))
    if asked.get("indices"):
        raise LvaeError("--indices", "are positions in a DATASET, and image files were given", "Leave the option out.")
    for source in sources:
        if Path(source).is_dir():
            raise LvaeError(source, "is a folder without a dataset", "Give one DATASET, or image files.")
    return from_files(studio, [Path(source) for source in sources], _label(studio, asked["label"]))


def _label(studio: Studio, text: str | None) -> int:
    """A class of a conditional model by number or name; -1 for none."""
    if text is None or text == "none":
        return -1
    return int(labels_of(text, 1, studio.classes, studio.config.dataset.classes, 0)[0])


def _guide(studio: Studio, asked: dict[str, Any]) -> Guide:
    mean, variance = guidance_weights(
        studio.model.config,
        asked["guidance_mean"],
        asked["guidance_variance"],
        asked["guidance"],
        asked["convention"],
    )
    return Guide(mean, variance) if any((*mean, *variance)) else Guide()


def _values(asked: dict[str, Any]) -> tuple[float, ...]:
    if asked["values"] is None:
        return manipulated.sweep_values(asked["steps"])
    try:
        values = tuple(float(part) for part in asked["values"].split(","))
    except ValueError:
        values = ()
    if not values or not np.isfinite(values).all():
        raise LvaeError(f"--values {asked['values']:.60}", "write numbers like -1,0,0.5,2")
    _not_too_many(len(values) ** 2)
    return values


def _channels(text: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """ "0:3,1:5" -> group and channel that are swept across and down."""
    parts = [part.strip().partition(":") for part in text.split(",")]
    if len(parts) != 2 or not all(g.isdigit() and c.isdigit() and len(g) < 6 and len(c) < 6 for g, _, c in parts):
        raise LvaeError(f"--channels {text:.60}", "write two of GROUP:CHANNEL, like 0:3,1:5")
    (first, _, one), (second, _, other) = parts
    return (int(first), int(one)), (int(second), int(other))


def _not_too_many(pictures: int) -> None:
    if pictures > MOST_PICTURES:
        raise LvaeError("", f"{pictures} pictures are too many for one figure", f"Ask for at most {MOST_PICTURES}.")


def _write(shown: Shown, out: Path, arrays: Path | None, what: str) -> None:
    write_whole(out, png(shown.picture))
    if arrays is not None:
        buffer = io.BytesIO()
        np.savez(buffer, **shown.arrays)  # type: ignore[arg-type]
        write_whole(arrays, buffer.getvalue())
    click.echo(f"{out}: {what}" + (f"; {arrays}: the arrays" if arrays is not None else ""))
