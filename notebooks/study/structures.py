"""When is a crystal structure worth having?  E_f on mp36k from the structure alone; from approximate structures, as
known crystals that explain a scan are; from structures beside composition and pattern, which may be absent.

Every row but that of composition and pattern knows a structure.  What is published read structures relaxed by the
method that gave the energies.

    PYTHONPATH=notebooks .venv/bin/python -m study.structures

asks the runs of the structure alone about crystals that they were trained with, and writes fit.csv.
Cost: 7 runs, 6.4 hours on a core; the one from mp90k takes an hour.
"""

import dataclasses

import numpy as np
import pandas as pd

from study import archive, leads, mp90k
from study.archive import RESULTS
from study.tables import origin, whole
from study.variants import MIXED
from xxlib import PROJECT
from xxlib.answering.inference import Ensemble, model_files
from xxlib.datasets.batches import CPU
from xxlib.datasets.sources.parquet import parquet
from xxlib.datasets.store import Dataset
from xxlib.datasets.targets import TARGETS
from xxlib.models.config import EncoderConfig, FusionConfig
from xxlib.prepare import prepare
from xxlib.training.machine import commit, hardware
from xxlib.training.presets import PRESETS
from xxlib.training.runs import RUNS, results

TABLE, FIT = "structures", "fit"
GOAL = 38  # meV/atom, from the structure alone
PUBLISHED = {"CGCNN": 39, "ALIGNN": 22}  # meV/atom, on splits of their own
APPROXIMATE = "candidate"  # a name of DISTORTIONS
CGCNN = EncoderConfig(kind="cgcnn", d_model=64)
EDGES = PRESETS["structure"].model.encoders["structure"]
BATCH = 32  # after 128,000 samples the MAE on `val` is 133 meV/atom with batches of 128, 101 with these
BARELY_LEARNED = ": even those are not learned in so few samples"
DEMO = "data/demo_structures"  # the embedded crystals with their structures, for "smoke"


def dataset_of(preset):
    """The folder of the dataset, with structures, that the runs of a preset read."""
    return DEMO if preset == "smoke" else PRESETS[preset].data.dataset


def prepare_demo():
    """Make the dataset of "smoke" where it is missing: half a minute."""
    if not (PROJECT / DEMO / "dataset.json").exists():
        crystals = PROJECT / "data" / "demo" / "crystals.parquet"
        prepare(parquet(crystals), PROJECT / DEMO, structure=True, progress=False)


def fused(query, *memory, preset="small"):
    """The model of a preset that reads these modalities, those of the memory asked by the query."""
    model = PRESETS[preset].model
    encoders = {name: (model.encoders | {"structure": CGCNN})[name] for name in (query, *memory)}
    fusion = dataclasses.replace(model.fusion or FusionConfig(), query=query, memory=memory)
    return dataclasses.replace(model, encoders=encoders, fusion=fusion)


def lines(preset="small"):
    """What is read, and of what kind -> its run."""
    base, of = PRESETS["structure"], PRESETS[preset]
    base = base.but(model=dataclasses.replace(base.model, encoders={"structure": CGCNN}))
    n_steps = of.budget.n_steps // (4 if preset == "smoke" else 1)
    base = base.but(dataset=dataset_of(preset), n_steps=n_steps, batch_size=of.budget.batch_size)

    def run(name, seed=0, **changes):
        prefix = "" if preset == "small" else f"{preset}-"
        return base.but(name=f"{prefix}{name}-s{seed}", seed=seed, **changes)

    likely = {"likelihood": True}
    approximate = {"likelihood": True, "distortions": APPROXIMATE}
    finer = {"batch_size": BATCH, "n_steps": base.budget.samples // BATCH, **MIXED}
    edges = {"model": dataclasses.replace(base.model, encoders={"structure": EDGES})}
    quarter = finer | {"n_steps": finer["n_steps"] // 4}
    absent = {"absent_rate": 0.2, "learning_rate": 5e-4, **approximate, **quarter}
    more = {"dataset": mp90k.DATASET if preset == "small" else DEMO}
    everything = fused("xrd", "composition", "structure", preset=preset)
    everything = dataclasses.replace(everything, encoders=everything.encoders | {"structure": EDGES})
    asks_atoms = fused("composition", "structure", preset=preset)
    silent = dataclasses.replace(asks_atoms, fusion=dataclasses.replace(asks_atoms.fusion, silent=True))
    formulas = {"initial": f"data/runs/{leads.of_energies(preset).name}", "learning_rate": 5e-4}
    return {
        "structure": run("structure-e_form-likelihood", **likely, **MIXED),
        "structure, edges updated, batches of 32": run("structure-edges-e_form-likelihood", **edges, **likely, **finer),
        "approximate structure": run("structure-candidate-e_form-likelihood", **approximate),
        "composition and approximate structure, asked by the pattern, inputs absent, a quarter of the samples": run(
            f"xrd-candidate-e_form-steps{quarter['n_steps']}", model=everything, **absent
        ),
        "approximate structure, asked by a composition that knows formulas": run(
            "formulas-candidate-e_form", model=silent, **formulas, **approximate
        ),
        "the same, from the crystals of mp90k": run(
            "formulas-candidate-e_form-mp90k", model=silent, **formulas, **approximate, **MIXED, **more
        ),
        "approximate structure, edges updated, batches of 32": run(
            "structure-candidate-edges-e_form-likelihood", **edges, **approximate, **finer
        ),
    }


def runs(preset="small"):
    """One a line, those that the others are compared with first; "smoke" has the one of approximate structures."""
    of = lines(preset)
    return [of["approximate structure"]] if preset == "smoke" else list(of.values())


def table(configs=None, place=RESULTS):
    """A row a line: the error on `test` from structures as they are and from approximate ones, in the target's unit."""
    rows, words = [], {run.name: line for preset in ("small", "smoke") for line, run in lines(preset).items()}
    for run in configs or runs():
        target = run.objectives.targets[0]
        row = {"line": words[run.name], "run": run.name, "knows the structure": True, "target": target}
        row |= {"unit": TARGETS[target].error_unit, "loss": _loss(run), "trained on": run.data.distortions or "true"}
        row |= {f"test mae, {name or 'true'}": error(run, name, place) for name in (None, APPROXIMATE)}
        rows.append(row | origin([run], place))
    return whole(pd.DataFrame(rows))


def error(run, distortions=None, place=RESULTS):
    """MAE of a run on `test` from structures under named distortions; None where it was not measured."""
    given = " + ".join(run.model.modalities)
    try:
        return archive.value(run.name, "mae", run.objectives.targets[0], place=place, given=given, effects=distortions)
    except (KeyError, AttributeError):
        return None


def _loss(run):
    return "likelihood" if run.objectives.likelihood else "absolute" if run.objectives.absolute else "squares"


def write_fit(n=2000):
    """Keep the error of runs of the structure alone on n crystals of train and of val each: what is as large on those
    that it was trained with was not learned.  Runs whose weights are not here are left out."""
    here, rows = [run for run in _alone().values() if results(RUNS / run.name)], []
    for run in here:
        ensemble, dataset = Ensemble.load(model_files(RUNS / run.name)), Dataset(PROJECT / run.data.dataset)
        (target,), row = run.objectives.targets, {"run": run.name, "crystals": n}
        for split in ("train", "val"):
            drawn = np.random.default_rng(0).permutation(dataset.indices(split))[:n]
            said = ensemble.of_rows(dataset, drawn, run.model.modalities).values[target]
            errors = TARGETS[target].error_scale * np.abs(said - dataset.labels[target][drawn])
            row[f"{split} mae"] = errors.mean()
        about = {"target": target, "unit": TARGETS[target].error_unit, "dataset": run.data.dataset, "seed": run.seed}
        rows.append(row | about | {"preset": run.preset, "commit": commit(), "hardware": hardware(CPU, 1)})
    pd.DataFrame(rows).to_csv(RESULTS / f"{FIT}.csv", index=False, float_format="%.5g")


def _alone():
    """The lines that read structures and nothing else, with their runs."""
    return {line: run for line, run in lines().items() if run.model.modalities == ("structure",)}


def findings(place=RESULTS):
    """What a structure is worth, true and approximate; then goal()."""
    sentences = []
    for row in table(place=place).dropna(subset="test mae, true").to_dict("records"):
        approximate = row[f"test mae, {APPROXIMATE}"]
        from_them = f", {approximate:.3g} from approximate structures" if pd.notna(approximate) else ""
        sentences.append(f"{row['line']}: MAE of {row['target']} {row['test mae, true']:.3g} {row['unit']}{from_them}.")
    return [*sentences, *goal(place)] or ["Structures: no run is finished."]


def goal(place=RESULTS):
    """Whether the best run of the structure alone meets the goal, and what keeps from it; empty where none is done."""
    errors = {line: error(run, place=place) for line, run in _alone().items()}
    errors = {line: value for line, value in errors.items() if value is not None}
    if not errors:
        return []
    best = min(errors, key=errors.get)
    met = "met" if errors[best] <= GOAL else "missed"
    return [
        f"From the structure alone the goal, {GOAL} meV/atom, is {met}: {errors[best]:.3g} ({best}). "
        f"Published: CGCNN {PUBLISHED['CGCNN']} from 28,046 crystals, ALIGNN {PUBLISHED['ALIGNN']} from 60,000.",
        *_fit(_alone()[best].name, place),
    ]


def _fit(name, place):
    """How well a run knows what it was trained with, in a sentence; none where that was not asked."""
    path = place / f"{FIT}.csv"
    rows = pd.read_csv(path).query("run == @name").to_dict("records") if path.exists() else []
    return [
        f"Of {row['crystals']} crystals that it was trained with it has {row['train mae']:.3g} {row['unit']}, of as "
        f"many of val {row['val mae']:.3g}{BARELY_LEARNED if row['train mae'] > row['val mae'] / 2 else ''}."
        for row in rows
    ]


if __name__ == "__main__":
    write_fit()
