"""Does a network that learns its own evidence know how wrong it is?  Evidential regression (Amini et al., NeurIPS 2020)
beside conformal intervals: coverage and width for E_f of mp36k, on `test` and on families that were never seen.

    PYTHONPATH=notebooks .venv/bin/python -m study.evidence

A small network reads statistics of the elements (floor.py).  Its answer is a Student-t distribution, which gives the
first interval; around the middle of it stand the others, as wide as `val` says: all alike, or in proportion to the
width that the network says.
Cost: 4 networks, 10 minutes on a core.
"""

import argparse

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import t
from torch import nn
from tqdm import tqdm

from study.archive import LABELS, RESULTS
from study.families import FAMILIES
from study.floor import composition_statistics
from xxlib import PROJECT
from xxlib.answering.calibration import conformal_quantile
from xxlib.datasets import splits
from xxlib.datasets.batches import CPU
from xxlib.datasets.store import Dataset
from xxlib.datasets.targets import TARGETS, Normaliser
from xxlib.training.examples import members_of
from xxlib.training.machine import commit, hardware
from xxlib.training.presets import PRESETS

DATASET = PRESETS["small"].data.dataset
FILE, TARGET, LEVEL = "evidence.csv", TARGETS["e_form"], 0.9
WIDTH, BATCH, EPOCHS, RATE = 256, 256, 40, 1e-3
DOUBT = 0.01  # weight of the term that takes evidence away where the answer is wrong, as published
INTERVALS = ("evidential", "conformal, all alike", "conformal, as wide as it says")


class Evidential(nn.Sequential):
    """Features (B, p) -> gamma, nu, alpha, beta (B,) of a normal-inverse-gamma distribution."""

    def __init__(self, n_features):
        super().__init__(nn.Linear(n_features, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(),
                         nn.Linear(WIDTH, 4))  # fmt: skip

    def forward(self, x):
        gamma, *others = super().forward(x).unbind(-1)
        nu, alpha, beta = map(F.softplus, others)
        return gamma, nu + 1e-6, alpha + 1 + 1e-6, beta + 1e-6


def evidential_loss(answer, y):
    """Mean negative log likelihood of the Student-t distribution, and the error times the evidence (Eq. 8 to 10)."""
    gamma, nu, alpha, beta = answer
    omega = 2 * beta * (1 + nu)
    likelihood = 0.5 * torch.log(torch.pi / nu) - alpha * torch.log(omega)
    likelihood = likelihood + (alpha + 0.5) * torch.log(nu * (y - gamma) ** 2 + omega)
    likelihood = likelihood + torch.lgamma(alpha) - torch.lgamma(alpha + 0.5)
    return (likelihood + DOUBT * (y - gamma).abs() * (2 * nu + alpha)).mean()


def fit(features, labels, seed=0, epochs=EPOCHS):
    """A trained network; features (n, p) and labels (n,) are normalised."""
    torch.manual_seed(seed)
    model, n = Evidential(features.shape[1]), len(labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * -(-n // BATCH))
    for _ in range(epochs):
        for rows in torch.randperm(n).split(BATCH):
            optimizer.zero_grad()
            evidential_loss(model(features[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return model


@torch.no_grad()
def said(model, features):
    """Middles (n,) and half-widths (n,) of the intervals that a network says itself, normalised."""
    gamma, nu, alpha, beta = (x.numpy().astype(float) for x in model(features))
    return gamma, t.ppf((1 + LEVEL) / 2, 2 * alpha) * np.sqrt(beta * (1 + nu) / (nu * alpha))


def half_widths(val, own):
    """Of each of INTERVALS, (n,): val: (errors (k,), half-widths that the network says (k,)); own: those of others."""
    errors, widths = val
    alike, scaled = (conformal_quantile(scores, LEVEL) for scores in (errors, errors / widths))
    return dict(zip(INTERVALS, (own, np.full(len(own), alike), scaled * own)))


def measure(dataset, epochs=EPOCHS):
    """A row a judged part (`test`, families never seen) and interval: coverage and mean width in the unit of tables."""
    features, labels, rows = composition_statistics(dataset), dataset.labels[TARGET.name], []
    stored = dataset.column("split")
    for family in tqdm((None, *FAMILIES), disable=None):
        assigned = splits.by_family(stored, members_of(dataset, family)) if family else stored
        parts = {split: dataset.indices(split, assigned) for split in ("train", "val", "test")}
        parts = {split: own[np.isfinite(labels[own])] for split, own in parts.items()}
        scale = Normaliser.fit(labels[parts["train"]])
        mean, std = (f(features[parts["train"]], axis=0) for f in (np.nanmean, np.nanstd))
        x = {split: torch.from_numpy(np.nan_to_num((features[own] - mean) / (std + 1e-6)).clip(-8, 8)).float()
             for split, own in parts.items()}  # fmt: skip
        y = {split: scale.normalise(labels[own]) for split, own in parts.items()}
        model = fit(x["train"], torch.from_numpy(y["train"]).float(), epochs=epochs)
        answers = {split: said(model, x[split]) for split in ("val", "test")}
        errors = {split: np.abs(answers[split][0] - y[split]) for split in answers}
        for name, widths in half_widths((errors["val"], answers["val"][1]), answers["test"][1]).items():
            row = {"judged on": family or "test", "split": "family" if family else "formula", "interval": name}
            row |= {"crystals": len(widths)}
            row |= {"test mae": TARGET.error_scale * scale.std * errors["test"].mean()}
            row |= {"coverage (%)": 100 * (errors["test"] <= widths).mean()}
            rows.append(row | {f"width ({TARGET.error_unit})": 2 * TARGET.error_scale * scale.std * widths.mean()})
    return pd.DataFrame(rows)


def findings(place=RESULTS):
    """What intervals that shall hold the truth in 90 % of cases hold, and how wide they are."""
    path = place / FILE
    if not path.exists():
        return ["Evidential regression: not measured."]
    sentences, width = [], f"width ({TARGET.error_unit})"
    for part, rows in pd.read_csv(path).groupby("judged on", sort=False):
        each = [f"{row['interval']} {row['coverage (%)']:.1f} % ({row[width]:.0f} wide)" for _, row in rows.iterrows()]
        where = "`test`" if part == "test" else f"{part}, never seen"
        sentences.append(
            f"Intervals of {100 * LEVEL:.0f} % for E_f hold the truth on {where}: {'; '.join(each)} "
            f"({TARGET.error_unit}; MAE {rows['test mae'].iloc[0]:.0f})."
        )
    return sentences


def main():
    argparse.ArgumentParser(prog="python -m study.evidence", description=__doc__.split("\n")[0]).parse_args()
    origin = {"dataset": DATASET, "labels": LABELS[DATASET], "preset": "none: a network of its own", "seed": 0}
    origin |= {"commit": commit(), "hardware": hardware(CPU, torch.get_num_threads())}
    table = measure(Dataset(PROJECT / DATASET)).assign(**origin)
    table.to_csv(RESULTS / FILE, index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
