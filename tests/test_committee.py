"""Query by committee: what is chosen, how errors are told, on the embedded crystals."""

import numpy as np
import pandas as pd
import pytest
from study import committee
from test_plots import at_print_size


def wave(n, random):
    """Features (n, 1) of which nine tenths lie where nothing changes, and labels."""
    x = np.where(random.random(n) < 0.9, random.random(n), 1 + random.random(n))
    return x[:, None], np.where(x < 1, 0.0, np.sin(20 * x))


def test_a_committee_asks_where_it_disagrees():
    """It needs fewer labels than chance, which asks mostly where nothing changes."""
    random = np.random.default_rng(0)
    train, test = wave(4000, random), wave(1000, random)
    found = {choice: list(committee.rounds(choice, train, test, seed=1, n=60)) for choice in committee.CHOICES}
    most, drawn, chance = found.values()
    assert [n for n, _ in most] == [60 * k for k in range(1, 7)] == [n for n, _ in drawn] == [n for n, _ in chance]
    assert most[0] == drawn[0] == chance[0], "all begin alike"
    assert most[-1][1] < 0.7 * chance[-1][1] and drawn[-1][1] < 0.8 * chance[-1][1]
    assert list(committee.rounds(committee.CHOICES[0], train, test, seed=1, n=60)) == most


def test_labels_that_an_error_needs():
    curve = np.array([1000, 2000, 3000]), np.array([100.0, 80.0, 70.0])
    assert committee.needed(curve, 75) == 2500 and committee.needed(curve, 120) == 1000
    assert np.isnan(committee.needed(curve, 60))


@pytest.mark.parametrize("committee_ends_at", [90.0, 130.0])
def test_it_is_said_how_many_labels_are_saved(tmp_path, committee_ends_at):
    assert committee.findings(tmp_path) == ["Query by committee: not measured."]
    assert committee.figures(place=tmp_path) == {}
    ends = dict(zip(committee.CHOICES, (committee_ends_at, 100.0, 120.0)))
    rows = [{"choice": choice, "seed": seed, "labels": n, "test mae": error + seed}
            for choice, end in ends.items() for seed in (0, 1)
            for n, error in ((1000, 150.0), (6000, end))]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / committee.FILE, index=False)
    (sentence,) = committee.findings(tmp_path)
    saved = "reach this with 3,500 (42 % fewer)" if committee_ends_at == 90 else "do not reach this"
    assert sentence == (
        "With 6,000 labels at random boosting has 120.5 meV/atom on test (150.5 with 1,000). Labels where models "
        f"disagree most {saved} and end at {committee_ends_at + 0.5:.1f}. Labels drawn by disagreement reach this with "
        "4,000 (33 % fewer) and end at 100.5."
    )
    (figure,) = committee.figures(place=tmp_path).values()
    assert not at_print_size(figure)
