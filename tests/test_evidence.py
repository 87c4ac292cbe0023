"""Evidential regression beside conformal intervals."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t
from study import evidence

from xxlib import PROJECT
from xxlib.datasets.store import Dataset


def test_the_loss_is_that_of_a_student_t_distribution():
    random = torch.Generator().manual_seed(0)
    gamma, y = (torch.randn(50, generator=random, dtype=torch.float64) for _ in range(2))
    nu, alpha, beta = (0.1 + torch.rand(50, generator=random, dtype=torch.float64) for _ in range(3))
    alpha = alpha + 1
    scale = torch.sqrt(beta * (1 + nu) / (nu * alpha))
    likelihood = -t.logpdf(y, 2 * alpha, gamma, scale).mean()
    doubt = ((y - gamma).abs() * (2 * nu + alpha)).mean()
    loss = evidence.evidential_loss((gamma, nu, alpha, beta), y)
    assert np.isclose(float(loss), likelihood + evidence.DOUBT * float(doubt))


def noisy(n, seed):
    """A line whose noise grows along it."""
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, (n, 1))
    y = x[:, 0] + random.normal(size=n) * np.where(x[:, 0] > 0, 0.5, 0.05)
    return torch.from_numpy(x).float(), torch.from_numpy(y).float()


def test_intervals_are_as_wide_as_the_noise_and_conformal_ones_hold_the_truth():
    (x, y), (x_val, y_val), (x_test, y_test) = (noisy(2000, seed) for seed in range(3))
    model = evidence.fit(x, y, epochs=30)
    middle, own = evidence.said(model, x_val)
    answer, widths = evidence.said(model, x_test)
    assert np.median(widths[x_test[:, 0] > 0]) > 3 * np.median(widths[x_test[:, 0] < 0])
    errors = np.abs(answer - y_test.numpy())
    intervals = evidence.half_widths((np.abs(middle - y_val.numpy()), own), widths)
    assert list(intervals) == list(evidence.INTERVALS) and np.array_equal(intervals["evidential"], widths)
    for name in evidence.INTERVALS[1:]:
        assert 0.87 < (errors <= intervals[name]).mean() < 0.93, name
    _, alike, scaled = intervals.values()
    assert np.ptp(alike) == 0 and scaled.mean() < 0.9 * alike.mean(), "where noise differs, widths that do are less"


def test_it_is_measured_on_test_and_on_families_never_seen(monkeypatch):
    dataset = Dataset(PROJECT / "data" / "demo")
    monkeypatch.setattr(evidence, "FAMILIES", ("chalcogenides",))
    table = evidence.measure(dataset, epochs=2)
    assert table["judged on"].tolist() == ["test"] * 3 + ["chalcogenides"] * 3
    assert table["crystals"].nunique() == 2 and table["coverage (%)"].between(0, 100).all()
    assert np.isfinite(table["width (meV/atom)"]).all() and table.groupby("judged on")["test mae"].nunique().eq(1).all()


def test_what_was_measured_is_said(tmp_path):
    assert evidence.findings(tmp_path) == ["Evidential regression: not measured."]
    rows = [{"judged on": part, "interval": name, "crystals": 9, "test mae": 100.0, "coverage (%)": 90.0 + k,
             "width (meV/atom)": 500.0} for part in ("test", "perovskites")
            for k, name in enumerate(evidence.INTERVALS)]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / evidence.FILE, index=False)
    of_test, of_family = evidence.findings(tmp_path)
    assert of_test == (
        "Intervals of 90 % for E_f hold the truth on `test`: evidential 90.0 % (500 wide); conformal, all alike 91.0 % "
        "(500 wide); conformal, as wide as it says 92.0 % (500 wide) (meV/atom; MAE 100)."
    )
    assert "on perovskites, never seen: evidential" in of_family


@pytest.mark.parametrize("n", [5, 200])
def test_few_errors_give_no_interval(n):
    """As conformal_quantile says: with five crystals of `val` nothing holds 90 %."""
    errors = np.linspace(0, 1, n)
    alike = evidence.half_widths((errors, np.ones(n)), np.ones(3))[evidence.INTERVALS[1]]
    assert np.isinf(alike).all() == (n == 5)
