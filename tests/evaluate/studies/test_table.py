"""Verdicts on orderings, and a study's results as a table."""

import pytest

from lvae.evaluate.studies.paper import FRECHET, LATENT, PIXEL, RECALL, STACK, TABLES, Ordering
from lvae.evaluate.studies.table import Reading, Study, as_dict, as_markdown, as_page, judge


def reading(latent: list[float], pixel: list[float], recall: float = 0.5) -> Reading:
    figures = {LATENT: latent, PIXEL: pixel}
    sets = {arm: [{FRECHET: one, RECALL: recall} for one in values] for arm, values in figures.items()}
    return Reading("Equal time", "For a minute each.", sets, {LATENT: "9 updates"})


@pytest.mark.parametrize(
    ("latent", "pixel", "verdict"),
    [
        ([10.0, 11.0, 12.0], [20.0, 21.0, 22.0], "holds"),
        ([20.0, 21.0, 22.0], [10.0, 11.0, 12.0], "does not hold"),
        ([10.0, 15.0, 20.0], [12.0, 17.0, 22.0], "within the spread of seeds"),
        ([10.0], [20.0], "one seed: nothing can be said"),
    ],
)
def test_an_ordering_needs_spreads_that_part(latent: list[float], pixel: list[float], verdict: str) -> None:
    assert judge(reading(latent, pixel), Ordering(LATENT, PIXEL, FRECHET)) == verdict


def test_higher_recall_is_ahead_and_an_arm_that_is_missing_is_said() -> None:
    found = reading([1.0, 1.0], [2.0, 2.0])
    assert judge(found, Ordering(LATENT, PIXEL, RECALL)) == "within the spread of seeds"
    assert judge(found, Ordering(LATENT, STACK, RECALL)) == "not measured"


def test_the_paper_stands_beside_ours() -> None:
    study = Study(TABLES["table1"], [reading([10.0, 12.0], [20.0, 22.0])], {"command": "lvae study"}, "Chosen: 1.")
    text = as_markdown(study)
    assert "| latent VAE | 11 ± 1.4 | 0.5 ± 0 | 7.89 | 0.35 | 9 updates |" in text
    assert "| latent VAE before pixel VAE, Fréchet distance ↓ | paper | holds |" in text
    assert "Chosen: 1." in text
    page = as_page(study, {}, "foot")
    headings = page.partition("<thead>")[2].partition("</thead>")[0].count("<th ")
    assert headings == page.partition("latent VAE</th>")[2].partition("</tr>")[0].count("<td ")  # each over its column
    assert "paper: FID" in page and "within the spread of seeds" in page
    verdicts = as_dict(study)["readings"][0]["verdicts"]
    assert next(one["verdict"] for one in verdicts if one["better"] == LATENT and one["worse"] == PIXEL) == "holds"


def test_every_ordering_of_the_paper_agrees_with_its_figures() -> None:
    for table in TABLES.values():
        for ordering in table.orderings:
            if not ordering.by_paper or not {ordering.better, ordering.worse} <= table.rows.keys():
                continue
            ahead, behind = table.rows[ordering.better], table.rows[ordering.worse]
            for name, sign in (("frechet", -1), ("precision", 1), ("recall", 1), ("seconds", -1)):
                values = getattr(ahead, name), getattr(behind, name)
                if name in ordering.metric and None not in values:
                    assert sign * values[0] > sign * values[1], (table.title, ordering)
