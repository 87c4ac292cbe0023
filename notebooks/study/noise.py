"""What does a trained model lose on `val` as one effect of instrument or powder grows, all others absent?

    PYTHONPATH=notebooks .venv/bin/python -m study.noise FOLDER ...

FOLDER: a run, or a checkpoint as xxlib.release writes it; names alone are those in data/runs and data/checkpoints.
Writes noise.csv and keeps what it says of others.
Cost: 60 evaluations of `val` for each thing that a model is given.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from study.archive import RESULTS
from study.claims import SUPERSEDED, WORDS, spoken
from study.measured import JOINED
from xxlib import plots
from xxlib.answering.inference import Ensemble, model_files
from xxlib.answering.predictor import CHECKPOINTS
from xxlib.datasets.batches import CPU
from xxlib.datasets.targets import TARGETS
from xxlib.diffraction.effects import Effects
from xxlib.training.examples import examples_of
from xxlib.training.machine import commit, hardware
from xxlib.training.metrics import accuracy_interval, regression_metrics
from xxlib.training.runs import RUNS, CheckpointError, write_atomically

# Words with unit, field of Effects, values from harmless to severe.
SEVERITIES = (
    ("instrument width (degree)", "instrument", (0.05, 0.1, 0.2, 0.4, 0.8)),
    ("crystallite size (nm)", "size", (200, 50, 20, 10, 5)),
    ("microstrain (%)", "strain", (0, 0.1, 0.2, 0.5, 1)),
    ("zero shift (degree)", "zero_shift", (0, 0.05, 0.1, 0.2, 0.4)),
    ("sample displacement (mm)", "displacement", (0, 0.1, 0.2, 0.4, 0.8)),
    ("change of the cell's lengths (%)", "lattice", (-3, -2, -1, 0, 1)),
    ("counts in the maximum", "counts", (100_000, 10_000, 1000, 300, 100)),
    ("background left (of 100)", "residue", (0, 0.5, 1, 2, 5)),
    ("strongest impurity line (of 100)", "impurity", (0, 5, 10, 20, 40)),
    ("scatter of line intensities (ln)", "line_scatter", (0, 0.25, 0.5, 0.75, 1)),  # where h, k, l are not known
    ("texture (March's coefficient)", "texture", (1, 0.9, 0.8, 0.65, 0.5)),  # where they are
    ("start of the range (degree)", "start", (5, 10, 15, 20, 30)),
    ("end of the range (degree)", "end", (90, 80, 70, 60, 50)),
)
BACKGROUND = 5.0  # of 100: that whose counting noise is there where counts are studied
QUANTITIES = {"accuracy": "accuracy (%)", "e_form": "E_f MAE (meV/atom)", "band_gap": "band gap MAE (eV)"}

SHOWN = {"E_f MAE (meV/atom)": "MAE of $E_f$ (meV/atom)", "band gap MAE (eV)": "MAE of band gap (eV)"}  # on axes


def noise_study(ensemble, severities=SEVERITIES):
    """What an Ensemble loses on `val` of its dataset: one row an effect, value and what is given.

    Accuracy of the crystal system with its interval, and MAE.  What is drawn for a crystal stays
    the same from value to value, so that differences are those of the severity.
    """
    examples = examples_of(ensemble.config)
    dataset, val = examples.dataset, examples.rows["val"]
    severities = [one for one in severities if one[1] != ("line_scatter" if dataset.has_hkl else "texture")]
    labels = {name: dataset.labels[name][val] for name in ensemble.targets}
    views = [given for given in ensemble.inputs if "xrd" in given]
    steps = [
        (effect, field, value, given) for effect, field, values in severities for value in values for given in views
    ]
    rows = []
    for effect, field, value, given in tqdm(steps, desc="noise study", unit="evaluation"):
        effects = {field: (value, value)} | ({"background": (BACKGROUND, BACKGROUND)} if field == "counts" else {})
        output = ensemble.of_rows(dataset, val, given, Effects(**effects))
        row = {"given": JOINED.join(given), "effect": effect, "value": value}
        if "crystal_system" in output.logits:
            row |= accuracy_interval(output.logits["crystal_system"].argmax(1) == labels["crystal_system"])
        for name, values in output.values.items():
            row[QUANTITIES[name]] = TARGETS[name].error_scale * regression_metrics(labels[name], values)["mae"]
        rows.append(row)
    return pd.DataFrame(rows)


def figures(place=RESULTS):
    """Each quantity against the severity of effects, for each thing that the models were given."""
    drawn = {}
    studied = pd.read_csv(place / "noise.csv")
    for given, table in studied[~studied["run"].isin(SUPERSEDED)].groupby("given"):
        for name, quantity in QUANTITIES.items():
            if quantity in table:
                shown = table.assign(run=table["run"].map(spoken)).rename(columns=SHOWN)
                figure = plots.severity(shown, SHOWN.get(quantity, quantity), f"On val, {WORDS[given]}")
                drawn[f"noise_{name}_{given.replace(JOINED, '_and_')}"] = figure
    return drawn


def findings(place=RESULTS):
    """The effect that costs each model most, of those studied."""
    sentences = []
    for (run, given), table in pd.read_csv(place / "noise.csv").groupby(["run", "given"], sort=False):
        worst = table.loc[table["accuracy (%)"].idxmin()]
        sentences.append(
            f"{run} is right for {table['accuracy (%)'].max():.0f} % of the crystal systems of val at best "
            f"{WORDS[given]}, for {worst['accuracy (%)']:.0f} % at worst: {worst['effect']} {worst['value']:g}."
        )
    return sentences


def main():
    parser = argparse.ArgumentParser(prog="python -m study.noise", description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of a run or a checkpoint, or its name")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of noise.csv")
    arguments = parser.parse_args()
    path = arguments.results / "noise.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["run"])
    for name in arguments.folders:
        places = (Path(name), CHECKPOINTS / name, RUNS / name)
        try:
            ensemble = Ensemble.load(next(filter(None, map(model_files, places)), []))
        except CheckpointError as error:
            sys.exit(f"noise: {name}: {error}")
        config = ensemble.config
        origin = {"run": Path(name).name, "dataset": config.data.dataset, "split": "val", "preset": config.preset}
        origin |= {"seed": config.seed, "commit": commit(), "hardware": hardware(CPU, torch.get_num_threads())}
        studied = noise_study(ensemble).assign(**origin)
        table = pd.concat([table[table["run"] != origin["run"]], studied], ignore_index=True)
        write_atomically(path, table.to_csv(index=False, float_format="%.5g").encode())


if __name__ == "__main__":
    main()
