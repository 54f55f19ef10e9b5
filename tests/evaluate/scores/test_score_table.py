"""What a person reads of scores: digits, spreads, verdicts, and nothing that can be misread."""

import pytest

from lvae.evaluate.scores.score_table import (
    Line,
    Scores,
    explain_few,
    format_number,
    format_spread,
    shown_metrics,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1, "1.00"),
        (0.0078614, "0.00786"),
        (245.23, "245"),
        (693.884, "694"),
        (1234.5, "1,234"),
        (-0.5, "-0.500"),
    ],
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert format_number(value) == text


def test_a_spread_that_is_rounding_is_none() -> None:
    assert format_spread(0.25, 3.4e-17) == "0.250 ± 0"
    assert format_spread(0.25, 0.0123) == "0.250 ± 0.012"
    assert format_spread(245.2, 2.1) == "245 ± 2.1"
    assert format_spread(693.884, 550.0) == "694 ± 550"
    assert format_spread(0.25, None) == format_spread(0.25, float("nan")) == "0.250"
    assert format_spread(0.0, 0.0) == "0 ± 0"


def test_what_would_tell_sets_apart_is_said_once() -> None:
    names = ("latent_kernel_distance", "latent_precision", "latent_recall")
    lines = [Line(name, "", (dict.fromkeys(names, 0.5),)) for name in ("samples", "linear")]
    table = Scores(tuple(lines), {"samples": 50, "reference": 100}).table()
    assert table.count("not told apart") == table.count("give --samples several times") == 1
    assert "latent kernel distance, latent precision, latent recall: not told apart" in table


def test_a_frechet_distance_of_few_is_shown_corrected_or_not_at_all() -> None:
    names = {"latent_frechet_distance": True, "latent_frechet_distance_corrected": True, "latent_recall": True}
    assert shown_metrics(names, few=True) == ("latent_frechet_distance_corrected", "latent_recall")
    assert shown_metrics(names, few=False) == ("latent_frechet_distance", "latent_recall")
    too_few = names | {"latent_frechet_distance_corrected": False}
    assert shown_metrics(too_few, few=True) == ("latent_recall",)
    assert "shown corrected" in (explain_few(names, [200, 5000]) or "")
    assert "not shown" in (explain_few(too_few, [20, 5000]) or "")
    assert explain_few(names, [20_000]) is None
    assert explain_few({"latent_recall": True}, [20]) is None
