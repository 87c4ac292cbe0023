"""The floor below every network: gradient boosting on statistics of the elements, without pattern or structure."""

import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from study import archive
from study.archive import RESULTS
from study.tables import row
from xxlib import PROJECT
from xxlib.datasets import targets
from xxlib.datasets.batches import collate_composition
from xxlib.training.metrics import classification_metrics, regression_metrics
from xxlib.training.records import record

BOOSTING = {"learning_rate": 0.1, "max_iter": 300, "max_leaf_nodes": 63, "early_stopping": True, "n_iter_no_change": 20}
# Chosen on `val`, for band gaps: more and smaller steps, a third of the features at each split, and among them the
# fraction of each element.
THOROUGH = BOOSTING | {"learning_rate": 0.05, "max_iter": 1500, "max_features": 0.3, "n_iter_no_change": 50}
LAWRENCIUM = 103  # above it pymatgen knows too little
DATASET = "data/mp36k"
NOBLE_GASES = (2, 10, 18, 36, 54, 86)


TARGETS = ("band_gap", "crystal_system", "e_form")  # that have a floor in Table 1


def name(target, also=(), dataset=DATASET, thorough=False):
    """How the run of a target is called; also: names of further datasets."""
    where = [Path(dataset).name] if dataset != DATASET else []
    return "-".join(["boosting" if thorough else "floor", target, *where, *(f"with-{one}" for one in also), "s0"])


def table(dataset=DATASET, place=RESULTS):
    """A row a floor that has finished, as results_table has them."""
    records = [archive.read(name(target, dataset=dataset), place) for target in TARGETS]
    return pd.DataFrame([row(record.config, record) for record in records if record])


def floor(dataset, target, folder, seed=0, also=(), thorough=False):
    """Fit the floor of one target on `train` of a Dataset, judge it on `val` and `test`; returns the results.

    Boosting ends where `val` no longer improves.  The run folder gets run.json, results.json and predictions.parquet in
    the form of a training, for the tables: a step is a boosting iteration, a batch all training crystals; parameters
    are not counted.  target: a name of targets.TARGETS.  also: further Datasets, whose `train` trains, too; no
    composition that judges may be among them.  thorough: no floor, but as good as boosting is here.  Raises ValueError
    where the labels of `train` do not vary.
    """
    started, target, folder = time.monotonic(), targets.TARGETS[target], Path(folder)
    rows = {split: dataset.indices(split) for split in ("train", "val", "test")}
    labels = dataset.labels[target.name]
    settings, described = (THOROUGH, _thoroughly) if thorough else (BOOSTING, composition_statistics)
    features = described(dataset)
    labelled = {split: here[np.isfinite(labels[here])] for split, here in rows.items()}
    kind = HistGradientBoostingRegressor if target.kind == "regression" else HistGradientBoostingClassifier
    model = kind(**settings, random_state=seed)
    train, val = labelled["train"], labelled["val"]
    learned, answers = [features[train]], [labels[train]]
    for other in also:
        more = other.indices("train")
        more = more[np.isfinite(other.labels[target.name][more])]
        learned.append(described(other)[more])
        answers.append(other.labels[target.name][more])
    learned, answers = np.concatenate(learned), np.concatenate(answers)
    if len(np.unique(answers)) < 2:
        raise ValueError(f"{target.name} does not vary over the {len(train)} training crystals: nothing to learn from")
    model.fit(learned, answers, X_val=features[val], y_val=labels[val])

    folders = [one.folder for one in (dataset, *also)]
    where, *others = [str(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path) for path in folders]
    n_steps = int(model.n_iter_)
    config = {
        "name": folder.name, "preset": "floor", "data": {"dataset": where, "split": "formula", "also": others},
        "model": {"architecture": "boosting", "encoders": {"composition": {}}, **settings},
        "objectives": {"targets": [target.name]},
        "budget": {"batch_size": len(answers), "n_steps": n_steps, "learning_rate": model.learning_rate},
        "seed": seed, "evaluate_test": True,
    }  # fmt: skip
    metrics, said = [], {}
    for split in ("val", "test"):
        predicted, true = _predict(model, target, features[rows[split]]), labels[rows[split]]
        metrics += metrics_of(split, target, true, predicted, answers, n_steps)
        said[split] = dataset.column("id")[rows[split]], {f"{target.name}_predicted": predicted}
    made = {"samples": len(answers) * n_steps, "best_step": n_steps, "seconds": time.monotonic() - started}
    return archive.write_as_run(folder, config, said, metrics, **made)


def composition_statistics(dataset):
    """What each crystal of a Dataset (n) has of each element property (p): (n, 5 p + 2), NaN where nothing is known.

    Mean and standard deviation, weighted by the fractions, least, greatest and range over its elements; then the number
    of elements and the greatest fraction.
    """
    composition, _ = collate_composition(dataset, np.arange(len(dataset)))
    element_ids, fractions = composition.element_ids.numpy(), composition.fractions.numpy()
    columns = []
    for values in element_properties().T:
        x = values[element_ids]  # (n, E), NaN for padding
        weight = np.where(np.isfinite(x), fractions, np.nan)
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)  # no element with a value: NaN is the answer
            mean = np.nansum(weight * x, 1) / np.nansum(weight, 1)
            std = np.sqrt(np.nansum(weight * (x - mean[:, None]) ** 2, 1) / np.nansum(weight, 1))
            least, greatest = np.nanmin(x, 1), np.nanmax(x, 1)
        columns += [mean, std, least, greatest, greatest - least]
    return np.stack([*columns, (element_ids > 0).sum(1), fractions.max(1)], axis=1)


def element_fractions(dataset):
    """The fraction of each element of each crystal of a Dataset (n), by atomic number: (n, 119)."""
    composition, _ = collate_composition(dataset, np.arange(len(dataset)))
    fractions = np.zeros((len(dataset), 119), np.float32)
    np.put_along_axis(fractions, composition.element_ids.numpy().astype(int), composition.fractions.numpy(), axis=1)
    fractions[:, 0] = 0  # padding
    return fractions


def _thoroughly(dataset):
    return np.concatenate([composition_statistics(dataset), element_fractions(dataset)], axis=1)


def element_properties():
    """Properties of the elements by atomic number: (119, 18), NaN where pymatgen knows none.

    Z, group, period, Mendeleev number, electronegativity (Pauling), mass (u), atomic radius (angstrom), ionisation
    energy and electron affinity (eV), melting point (K), molar volume (cm3/mol), least and greatest common oxidation
    state; electrons beyond the last noble gas: s, p, d, f, all.
    """
    from pymatgen.core import Element

    table = np.full((119, 18), np.nan)
    for z in range(1, LAWRENCIUM + 1):
        element = Element.from_Z(z)
        core = [Element.from_Z(gas).full_electronic_structure for gas in NOBLE_GASES if gas < z]
        outer = dict.fromkeys("spdf", 0)
        for shells, sign in ((element.full_electronic_structure, 1), *((shells, -1) for shells in core[-1:])):
            for _, orbital, electrons in shells:
                outer[orbital] += sign * electrons
        states = element.common_oxidation_states or (None,)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what pymatgen does not know is NaN
            properties = (
                *(z, element.group, element.row, element.mendeleev_no, element.X, element.atomic_mass),
                *(element.atomic_radius, element.ionization_energy, element.electron_affinity, element.melting_point),
                *(element.molar_volume, min(states), max(states), *outer.values(), sum(outer.values())),
            )
        table[z] = [np.nan if value is None else float(value) for value in properties]
    return table


def _predict(model, target, features):
    """(n,) in the target's unit, or (n, K) probabilities, 0 for a class that `train` does not have."""
    if target.kind == "regression":
        return model.predict(features)
    probabilities = np.zeros((len(features), target.width))
    probabilities[:, model.classes_.astype(int)] = model.predict_proba(features)
    return probabilities


def metrics_of(split, target, true, predicted, train, step, given=("composition",)):
    """Records of one split with `error`, as a training has them; train: the labels it was fitted to."""
    if target.kind == "regression":
        values = regression_metrics(true, predicted)
        error = values["mae"] / targets.Normaliser.fit(train).std
    else:
        values = classification_metrics(true, predicted)
        error = 1 - values["accuracy"]
    view = {"step": step, "target": target.name, "given": given}
    named = [record(split, metric, value, **view) for metric, value in values.items()]
    return [record(split, "error", error, step=step), *named]
