"""What does the gate of a fusion say of each modality?  Its mean weights on `test`, by crystal system: of ideal
patterns and of noisy ones, of another crystal's pattern, with either input missing.

    PYTHONPATH=notebooks .venv/bin/python -m study.gates FOLDER ...

FOLDER: a run whose fusion weighs, or its name.  Writes gates.csv and keeps what it says of others.
Cost: six evaluations of `test` a run, a minute.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from study.archive import RESULTS
from xxlib.answering.inference import load_trained
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.datasets.batches import CPU
from xxlib.training.examples import examples_of
from xxlib.training.judging import outputs, views
from xxlib.training.machine import commit, hardware
from xxlib.training.records import JOINED
from xxlib.training.runs import RUNS, CheckpointError, write_atomically

ABOUT = ["run", "target", "given", "effects", "exchanged"]
BOTH = JOINED.join(("composition", "xrd"))


def weights(folder):
    """Mean weights (%) of a finished run on `test`: a row a view and what is weighed, modality or expert.

    A column a crystal system, and "all".  Raises CheckpointError where its weights are missing or damaged, ValueError
    where its fusion weighs nothing.
    """
    model, config, _ = load_trained(Path(folder) / "model.safetensors")
    examples, exact = examples_of(config), config.but(precision="fp32")
    systems, rows = examples.dataset.column("crystal_system")[examples.rows["test"]], []
    for view in views(config):
        of_view = [output.weights for output in outputs(model, examples, "test", exact, CPU, view)]
        if of_view[0] is None:
            raise ValueError(f"{config.name} has no fusion that weighs: there is nothing to look at")
        of_view = 100 * torch.cat(of_view).numpy()  # (n, N)
        about = [config.name, *config.objectives.targets[:1], JOINED.join(view.given), view.effects, view.exchanged]
        for name, of_one in zip(weighed(config.model), of_view.T):
            means = {system: of_one[systems == system].mean() for system in CRYSTAL_SYSTEMS if system in systems}
            rows.append(dict(zip(ABOUT, about)) | {"weight (%) of": name} | means | {"all": of_one.mean()})
    origin = {"dataset": config.data.dataset, "split": "test", "preset": config.preset, "seed": config.seed}
    return pd.DataFrame(rows).assign(**origin, commit=commit(), hardware=hardware(CPU, torch.get_num_threads()))


def weighed(model):
    """The names of what the fusion of a ModelConfig weighs."""
    if model.has_experts:
        return [f"expert {k + 1}" for k in range(model.fusion.n_experts)]
    return [model.fusion.query, *model.fusion.memory]


def table(place=RESULTS):
    """The committed weights; empty where nothing was looked at yet."""
    path = place / "gates.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=[*ABOUT, "weight (%) of", "all"])


def by_system(table, name="xrd"):
    """The weights (%) that one modality, or expert, of a run has from both: a row a crystal system, a column a view."""
    rows = table[(table["weight (%) of"] == name) & (table["given"] == BOTH)]
    words = [
        "another crystal's pattern" if exchanged else f"{effects or 'ideal'} pattern"
        for effects, exchanged in zip(rows["effects"].fillna(""), rows["exchanged"].fillna(""))
    ]
    shown = rows[[*(system for system in CRYSTAL_SYSTEMS if system in rows), "all"]].T.set_axis(words, axis=1)
    return shown.rename_axis("crystal system").reset_index()


def findings(place=RESULTS):
    """What each gate of modalities gives the pattern."""
    sentences, found = [], table(place)
    found = found[(found["weight (%) of"] == "xrd") & (found["given"] == BOTH)]  # not of experts
    for run, rows in found.groupby("run", sort=False):
        ideal = rows[rows["effects"].isna() & rows["exchanged"].isna()].iloc[0]
        others = {"where it is noisy": rows["effects"].notna(), "where it is another's": rows["exchanged"].notna()}
        said = [f"{rows['all'][which].iloc[0]:.0f} % {words}" for words, which in others.items() if which.any()]
        of_each = ideal[[system for system in CRYSTAL_SYSTEMS if system in ideal]].astype(float)
        most, least = of_each.idxmax(), of_each.idxmin()
        sentences.append(
            f"{run}: the pattern has {ideal['all']:.0f} % of the weight, {', '.join(said)}; of {most} crystals "
            f"{of_each[most]:.0f} %, of {least} ones {of_each[least]:.0f} %."
        )
    return sentences


def main():
    parser = argparse.ArgumentParser(prog="python -m study.gates", description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of a run, or its name")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of gates.csv")
    arguments = parser.parse_args()
    found = table(arguments.results)
    for name in arguments.folders:
        folder = Path(name) if Path(name).is_dir() else RUNS / name
        try:
            studied = weights(folder)
        except (CheckpointError, ValueError) as error:
            sys.exit(f"gates: {name}: {error}")
        kept = found[found["run"] != studied["run"][0]]
        found = pd.concat([kept, studied], ignore_index=True) if len(kept) else studied
    found = found.replace({None: np.nan})
    write_atomically(arguments.results / "gates.csv", found.to_csv(index=False, float_format="%.4g").encode())


if __name__ == "__main__":
    main()
