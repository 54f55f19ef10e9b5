"""A study's results as a table in Markdown, as JSON and as a page, with a verdict on every ordering."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lvae.evaluate.report.page import (
    Block,
    ColumnGroup,
    Facts,
    Numbers,
    Page,
    Paragraph,
    PictureRow,
    PictureTable,
    Section,
    Thumbnail,
)
from lvae.evaluate.scores.score_table import Figures, Line, compare
from lvae.evaluate.studies.paper import (
    AGREEMENT,
    FRECHET,
    KERNEL,
    PRECISION,
    RECALL,
    SECONDS,
    Ordering,
    PaperRow,
    Table,
)

NAMES = {
    FRECHET: "Fréchet distance ↓",
    f"{FRECHET}_corrected": "Fréchet distance, corrected ↓",
    KERNEL: "kernel distance ↓",
    PRECISION: "precision ↑",
    RECALL: "recall ↑",
    AGREEMENT: "class agreement ↑",
    SECONDS: "seconds for 1,000 ↓",
}
FEW = "Of few pictures the Fréchet distance is biased, more so where they are varied; the kernel distance is not."
VERDICTS = {"better": "holds", "worse": "does not hold"}


@dataclass(frozen=True)
class Reading:
    """The results of all arms under one rule. figures: of every arm, one a seed. facts: of every arm, in words."""

    name: str
    what: str
    figures: Mapping[str, Sequence[Figures]]
    facts: Mapping[str, str]

    @property
    def metrics(self) -> list[str]:
        found = {metric: None for figures in self.figures.values() for one in figures for metric in one}
        return [metric for metric in NAMES if metric in found]

    def line(self, arm: str) -> Line:
        return Line(arm, arm, tuple(self.figures[arm]))


@dataclass(frozen=True)
class Study:
    """settings: what decided it, for a person. chosen: what was chosen on other seeds, in words."""

    table: Table
    readings: Sequence[Reading]
    settings: Mapping[str, str]
    chosen: str = ""


def judge(reading: Reading, ordering: Ordering) -> str:
    """ "holds", "does not hold", "within the spread of seeds", or why nothing can be said."""
    if not reading.figures.get(ordering.better) or not reading.figures.get(ordering.worse):
        return "not measured"
    ahead, behind = reading.line(ordering.better), reading.line(ordering.worse)
    said = compare(ahead, behind, ordering.metric)
    if said.startswith("not told apart"):
        return "within the spread of seeds" if len(ahead.sets) > 1 else "one seed: nothing can be said"
    return VERDICTS.get(said, said)


def as_dict(study: Study) -> dict[str, Any]:
    """Everything that the table says, every seed by itself."""
    return {
        "title": study.table.title,
        "settings": dict(study.settings),
        "chosen": study.chosen,
        "readings": [
            {
                "name": one.name,
                "figures": {arm: [dict(each) for each in sets] for arm, sets in one.figures.items()},
                "facts": dict(one.facts),
                "verdicts": [
                    {
                        "better": o.better,
                        "worse": o.worse,
                        "metric": o.metric,
                        "paper": o.by_paper,
                        "verdict": judge(one, o),
                    }
                    for o in study.table.orderings
                ],
            }
            for one in study.readings
        ],
    }


def as_markdown(study: Study) -> str:
    """For people and for a repository."""
    lines = [f"# {study.table.title}", ""]
    lines += [f"{name}: {value}  " for name, value in study.settings.items()]
    for reading in study.readings:
        headings, rows = list_rows(study.table, reading)
        lines += ["", f"## {reading.name}", "", reading.what, ""]
        lines += [f"|  | {' | '.join(headings)} |", "|---|" + "---|" * len(headings)]
        lines += [f"| {' | '.join([name, *cells])} |" for name, cells in rows]
        lines += ["", "| ordering | by | verdict |", "|---|---|---|"]
        lines += [f"| {words} | {by} | {verdict} |" for words, by, verdict in list_verdicts(study.table, reading)]
    lines += ["", *([study.chosen, ""] if study.chosen else []), study.table.note, "", FEW]
    return "\n".join(lines) + "\n"


def list_rows(table: Table, reading: Reading) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Headings, and of every arm its name and cells: ours, the paper's, and what it took."""
    metrics = reading.metrics
    paper = [metric for metric in metrics if any(_of_paper(row, metric) is not None for row in table.rows.values())]
    headings = [
        *(NAMES[one] for one in metrics),
        *(f"paper: {'FID ↓' if one == FRECHET else NAMES[one]}" for one in paper),
    ]
    headings += ["training"] if reading.facts else []
    rows = []
    for arm in reading.figures:
        line, row = reading.line(arm), table.rows.get(arm, PaperRow())
        cells = [_show(line, metric) for metric in metrics]
        said = [_of_paper(row, metric) for metric in paper]
        cells += ["" if value is None else f"{value:g}" for value in said]
        rows.append((arm, [*cells, *([reading.facts.get(arm, "")] if reading.facts else [])]))
    return headings, rows


def list_verdicts(table: Table, reading: Reading) -> list[tuple[str, str, str]]:
    """Of every ordering: what it says, who says so, and whether it holds."""
    return [
        (f"{one.better} before {one.worse}, {NAMES[one.metric]}", "paper" if one.by_paper else "", judge(reading, one))
        for one in table.orderings
    ]


def as_page(study: Study, pictures: Mapping[str, Sequence[Thumbnail]], foot: str) -> str:
    """One HTML page which needs nothing beside itself. pictures: of every arm, from equal seeds."""
    sections = []
    for number, reading in enumerate(study.readings):
        headings, rows = list_rows(study.table, reading)
        verdicts = [
            (f"{words}{', as in the paper' if by else ''}", said)
            for words, by, said in list_verdicts(study.table, reading)
        ]
        blocks: list[Block] = [
            Paragraph(reading.what),
            Numbers(reading.name, headings, [(name, cells, False) for name, cells in rows]),
            Facts("Verdicts", verdicts),
        ]
        sections.append(Section(f"reading-{number}", reading.name, blocks))
    longest = max((len(row) for row in pictures.values()), default=0)
    if longest:
        shown = [PictureRow(arm, tuple(row)) for arm, row in pictures.items()]
        table = PictureTable("Pictures from equal seeds", [ColumnGroup("", ("",) * longest)], shown)
        sections.append(Section("pictures", "Pictures", [table]))
    said: list[Block] = [Facts("Settings", list(study.settings.items())), Paragraph(study.table.note)]
    said += [Paragraph(text) for text in (study.chosen, FEW) if text]
    sections.append(Section("settings", "How it was made", said))
    lede = "The paper's comparison at the size of one machine, scored by a network's features on pictures set aside."
    return Page(study.table.title, "Latent VAE · a study", lede, [], sections, foot).render()


def _show(line: Line, metric: str) -> str:
    mean, spread = line.mean(metric), line.spread(metric)
    if mean is None:
        return "–"
    return f"{mean:.4g}" + ("" if spread is None else f" ± {spread:.2g}")


def _of_paper(row: PaperRow, metric: str) -> float | None:
    return {FRECHET: row.frechet, PRECISION: row.precision, RECALL: row.recall, SECONDS: row.seconds}.get(metric)
