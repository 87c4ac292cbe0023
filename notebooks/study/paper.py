"""Tables 1 to 5 of the paper and its transfer to the band gap: ours, with the paper's number beside it; and what the
paper did not try: new families, other ways to pretrain.

Each takes a folder of runs and those `planned` for the table (RunConfigs).  What has not finished is a row without
metrics whose `note` names the missing runs.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from study.latent import SPACES, mean_silhouettes
from study.scaling import speed_up, value_at
from study.tables import (
    ARCHITECTURES,
    BAND_GAP,
    CRYSTAL_SYSTEM,
    E_FORM,
    LABELS,
    SPACE_GROUP,
    WHOLE,
    finished,
    planned_table,
    results_table,
    summary_table,
)
from xxlib import PROJECT
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.datasets.targets import TARGETS
from xxlib.training import runs
from xxlib.training.masking import hidden_tokens

RESULTS = PROJECT / "data" / "results"
# Of the same crystals, where the model has learned from others of their family, and where not.
KNOWN_FAMILY, NEW_FAMILY = (f"test {words} e_form mae (meV/atom)" for words in ("known family", "new family"))
COST = "cost (meV/atom)"
GAIN, HIDDEN = "gain (meV/atom)", "hidden in effect (%)"
MANY = 100_000  # patterns over which HIDDEN is a mean
# Of arXiv 2507.01054 only the abstract was at hand.
PAPER = "not stated in the abstract"
PAPER_SPEED_UP = "up to 4.2 (abstract)"
# On the `test` of mp36k by formula, except ALIGNN, whose published predictions belong to a random split of the same
# release with 60,000 crystals for training; ALIGNN is given the crystal structure, the others are not.
REFERENCES = (
    {
        "model": "median, or most frequent class, of train",
        E_FORM: 963,
        BAND_GAP: 1.44,
        CRYSTAL_SYSTEM: 22.6,
        SPACE_GROUP: 8.0,
    },
    {"model": "CrabNet, published code, 40 epochs", E_FORM: 66.0, "parameters": 12_000_000},
    {"model": "ALIGNN, from the structure", E_FORM: 22, BAND_GAP: 0.218, "split": "random, 60,000 crystals to train"},
)


def table_1(folder, planned):
    """Which modality says what of which target: the summary of the planned runs, the floor, and the REFERENCES."""
    everything = results_table(folder)
    ours = summary_table(planned_table(folder, planned)).assign(paper=PAPER)
    floor = summary_table(everything[everything["preset"] == "floor"])
    references = pd.DataFrame(REFERENCES).assign(dataset="data/mp36k", labels=LABELS["data/mp36k"])
    references["split"] = references["split"].fillna("formula")
    table = pd.concat([part for part in (ours, floor, references) if len(part)], ignore_index=True)
    return table.astype({name: "Int64" for name in WHOLE})  # NaN would make them decimals


ABOUT = ["dataset", "labels", "split", "preset", "seeds", "hardware", "commit", "note"]
SHARES = (0.05, 0.15, 0.25)  # of training, at which Table 2 looks
# Target -> metric in metrics.jsonl, name with unit, factor to it, whether it grows.
CURVES = {
    "e_form": ("e_form_mae", "MAE of E_f (meV/atom)", 1000, False),
    "band_gap": ("band_gap_mae", "MAE of band gap (eV)", 1, False),
    "crystal_system": ("crystal_system_accuracy", "accuracy of crystal system (%)", 100, True),
}


def table_2(folder, planned):
    """What pretraining saves: metrics on `val` at 5, 15 and 25 % of training and at best, means over the seeds.

    speed-up: 25 % of training, divided by the steps after which a run reaches what the run from scratch of its seed has
    reached there (scaling.speed_up).  From scratch with other steps: no speed-up.
    """
    rows = []
    scratch = {(c.targets, c.n_steps, c.seed): c for c in _finished(folder, planned) if c.initial is None}
    for (targets, start, n_steps), group in _groups(planned, lambda c: (c.targets, c.initial, c.n_steps)).items():
        there = _finished(folder, group)
        lines = [runs.metrics(Path(folder) / config.name) for config in there]
        pairs = [(scratch.get((targets, n_steps, config.seed)), own) for config, own in zip(there, lines) if start]
        pairs = [(runs.metrics(Path(folder) / config.name), own) for config, own in pairs if config]
        for name in targets:
            metric, shown, scale, rising = CURVES[name]
            row = {"start": _start(start), "targets": " + ".join(targets), "n_steps": n_steps, "metric": shown}
            if lines:
                for share in SHARES:
                    row[f"val at {share:.0%}"] = scale * np.mean(
                        [value_at(own, f"val/{metric}", share) for own in lines]
                    )
                curves = [[line[f"val/{metric}"] for line in own if f"val/{metric}" in line] for own in lines]
                row["val at best"] = scale * np.mean([max(curve) if rising else min(curve) for curve in curves])
                tests = [runs.results(Path(folder) / config.name)[f"test/{metric}"] for config in there]
                row |= {"test": scale * np.mean(tests), "+- test": scale * pd.Series(tests).std()}
            if pairs:
                gain = speed_up(*zip(*pairs), f"val/{metric}", rising)
                row |= {"speed-up": gain["mean"], "+- speed-up": gain["std"]}
                reached = SHARES[-1] * n_steps / gain["ratios"][gain["ratios"] > 0]
                row["steps to scratch's 25%"] = reached.mean() if len(reached) else np.nan
            rows.append(row | {"paper": PAPER_SPEED_UP if start else ""} | _about(folder, group))
    columns = ["start", "targets", "n_steps", "metric", *(f"val at {share:.0%}" for share in SHARES), "val at best"]
    columns += ["test", "+- test", "steps to scratch's 25%", "speed-up", "+- speed-up", "paper", *ABOUT]
    return pd.DataFrame(rows, columns=columns)


def table_3(folder, planned):
    """What each modality is read with: variants of the unimodal models, all with the same few steps.

    What the paper's Table 3 compares is not in its abstract; these are the variants that this kit has.
    """
    table = summary_table(planned_table(folder, planned), (E_FORM, CRYSTAL_SYSTEM))
    return table.assign(paper=PAPER)


def transfer(folder, planned, metric=BAND_GAP):
    """What a new linear head reads of a target from models that never saw it, beside models trained on it."""
    table = summary_table(planned_table(folder, planned), (metric,))
    table.insert(1, "start", [_start(path) for path in table["initial"]])
    return table.assign(paper=PAPER)


def families(folder, planned):
    """What it costs that a family is new: runs without one of splits.FAMILIES, judged on all of it.

    Beside each, for the crystals of the family that are in `test` by formula, the run without left_out of the same
    model, steps and seed, which has learned from the others of the family: the cost and half of its 95 % interval over
    these crystals.  Means over seeds.
    """
    rows, usual = [], {_budget(c): c for c in _finished(folder, planned) if not c.left_out}
    without = [config for config in planned if config.left_out]
    for group in _groups(without, lambda c: (c.left_out, c.model, c.n_steps)).values():
        known = planned_table(folder, group[:1]).iloc[0]
        row = {"family": known["left_out"], "model": f"{ARCHITECTURES[known['architecture']]} {known['preset']}"}
        row |= {"modalities": known["modalities"], "n_steps": known["n_steps"]}
        there = _finished(folder, group)
        new = [errors(Path(folder) / config.name, "e_form") for config in there]
        if new:
            row |= {"crystals": len(new[0]), E_FORM: np.mean([of_one.mean() for of_one in new])}
        pairs = [(of_one, usual.get(_budget(config))) for config, of_one in zip(there, new)]
        pairs = [(of_one, errors(Path(folder) / other.name, "e_form")) for of_one, other in pairs if other]
        pairs = [pd.concat(pair, axis=1, join="inner") for pair in pairs]
        if pairs:
            left_out, learned = np.mean(pairs, axis=0).T
            row |= {"crystals in test": len(learned), NEW_FAMILY: left_out.mean(), KNOWN_FAMILY: learned.mean()}
            row |= {COST: (left_out - learned).mean(), f"+- {COST}": 1.96 * pd.Series(left_out - learned).sem()}
        rows.append(row | _about(folder, group))
    columns = ["family", "model", "modalities", "crystals", E_FORM, "crystals in test", KNOWN_FAMILY, NEW_FAMILY, COST]
    table = pd.DataFrame(rows, columns=[*columns, f"+- {COST}", "n_steps", *ABOUT])
    return table.astype({"crystals": "Int64", "crystals in test": "Int64"})


def hidden(folder, planned):
    """What pretraining that the paper did not try gives: other shares hidden, longer spans, crystals without labels.

    hidden in effect: a pattern hides one token, or span, at least (training.masking).
    gain: how much lower the MAE of E_f on `test` is than that of the run from scratch of the same steps, and half of
    its 95 % interval over the crystals.  One seed each.
    """
    starts = {config.name: config for config in planned if not config.targets}
    (scratch,) = (config for config in planned if config.targets and not config.initial)
    there = {config.name: errors(Path(folder) / config.name, "e_form") for config in _finished(folder, planned)}
    rows = []
    for config in planned:
        if not config.targets:
            continue
        row = {"pretraining": "none"}
        if config.initial:
            start = starts[_start(config.initial)]
            learned = [start.dataset if start.n_train != 0 else None, start.unlabelled]
            row = {"pretraining": " + ".join(start.objectives), "learned from": " + ".join(filter(None, learned))}
            row |= {"hidden (%)": 100 * start.hidden_rate, "span (tokens)": start.hidden_span}
            row |= {HIDDEN: 100 * hidden_tokens(MANY, start.hidden_rate, start.hidden_span).mean()}
        if config.name in there:
            row |= {E_FORM: there[config.name].mean()}
            if config.initial and scratch.name in there:
                gain = there[scratch.name] - there[config.name]
                row |= {GAIN: gain.mean(), f"+- {GAIN}": 1.96 * gain.sem()}
        rows.append(row | {"n_steps": config.n_steps} | _about(folder, [config]))
    columns = ["pretraining", "learned from", "hidden (%)", "span (tokens)", HIDDEN, E_FORM, GAIN, f"+- {GAIN}"]
    columns += ["n_steps", *ABOUT]
    return pd.DataFrame(rows, columns=columns).astype({"span (tokens)": "Int64"})


def table_4(folder, planned):
    """Accuracy on `test` of each crystal system (%), of all crystals, and the mean over systems; means over seeds."""
    rows = []
    planned = [config for config in planned if "crystal_system" in config.targets]
    for _, group in _groups(planned, lambda c: (c.model, c.targets, c.initial, c.n_steps)).items():
        there = _finished(folder, group)
        accuracies = pd.DataFrame([_accuracies(Path(folder) / config.name) for config in there])
        known = planned_table(folder, group[:1]).iloc[0]
        row = {"model": f"{ARCHITECTURES[known['architecture']]} {known['preset']}", "start": _start(known["initial"])}
        row |= {name: known[name] for name in ("modalities", "targets", "n_steps")}
        rows.append(row | accuracies.mean().to_dict() | {"paper": PAPER} | _about(folder, group))
    columns = ["model", "start", "modalities", "targets", "n_steps", *CRYSTAL_SYSTEMS, "mean", "all"]
    return pd.DataFrame(rows, columns=[*columns, "paper", *ABOUT])


def table_5(folder, planned):
    """Silhouettes of the crystal systems in the CLS vectors (latent.describe wrote them): mean over systems, and each.

    In all dimensions and, where it says so, in the first two principal components; means over seeds, beside the first
    two with the standard deviation of one run.
    """
    rows = []
    for _, group in _groups(planned, lambda c: (c.model, c.targets, c.initial)).items():
        paths = {config.name: Path(folder) / config.name / "latent.parquet" for config in _finished(folder, group)}
        scores = [mean_silhouettes(pd.read_parquet(path)) for path in paths.values() if path.exists()]
        known, about = planned_table(folder, group[:1]).iloc[0], _about(folder, group)
        row = {"modalities": known["modalities"], "targets": known["targets"], "start": _start(known["initial"])}
        lacking = [f"{path.name} of {name}" for name, path in paths.items() if not path.exists()]
        if lacking:
            about["note"] = "; ".join([about["note"]] * bool(about["note"]) + [f"missing: {', '.join(lacking)}"])
        if scores:
            means = pd.DataFrame([of_one.loc["mean"] for of_one in scores])
            for space in SPACES:
                row |= {f"mean, {space}": means[space].mean(), f"+- {space}": means[space].std()}
            row |= pd.DataFrame([of_one["all dimensions"].drop("mean") for of_one in scores]).mean().to_dict()
            row |= {"crystals": means["crystals"].iloc[0]}
        rows.append(row | {"paper": PAPER} | about)
    columns = ["modalities", "targets", "start"]
    columns += [name for space in SPACES for name in (f"mean, {space}", f"+- {space}")]
    columns += [*CRYSTAL_SYSTEMS, "crystals", "paper", *ABOUT]
    return pd.DataFrame(rows, columns=columns).astype({"crystals": "Int64"})


def errors(run, target):
    """The error of a run (folder) for each crystal of `test`, in the unit of the tables, by id."""
    table = pd.read_parquet(run / "predictions.parquet").set_index("id")
    table = table[(table["split"] == "test") & table[target].notna()]
    said, scale = table[f"{target}_predicted"], CURVES[target][2]
    if TARGETS[target].kind == "regression":
        return scale * (said - table[target]).abs()
    return float(scale) * (np.stack(said).argmax(1) != table[target])


def written(name):
    """The table data/results/<name>.csv, as data/results/mp36k.py wrote it from the committed runs."""
    table = pd.read_csv(RESULTS / f"{name}.csv")
    whole = (*WHOLE, "crystals", "crystals in test", "span (tokens)")
    return table.astype({column: "Int64" for column in whole if column in table})


def _groups(planned, key):
    """Runs that predict something, by a key."""
    groups = {}
    for config in planned:
        if config.targets:
            groups.setdefault(key(config), []).append(config)
    return groups


def _finished(folder, planned):
    return [config for config in planned if config.targets and finished(folder, config)]


def _budget(config):
    return config.model, config.n_steps, config.seed


def _start(initial):
    return Path(initial).name if initial else "scratch"


def _about(folder, group):
    """What a row of some planned runs that differ by their seed says of them, ABOUT."""
    known = planned_table(folder, group)
    about = {name: ", ".join(sorted(set(known[name]) - {""})) for name in ABOUT if name in known}
    missing = [name for name in known["note"] if name]
    return about | {"seeds": len(group) - len(missing), "note": f"missing: {', '.join(missing)}" if missing else ""}


def _accuracies(folder):
    """% of the crystals of each system on `test` whose system is predicted; `mean` over systems; `all` crystals."""
    predictions = pd.read_parquet(folder / "predictions.parquet")
    test = predictions[(predictions["split"] == "test") & predictions["crystal_system"].notna()]
    right = np.stack(test["crystal_system_predicted"]).argmax(1) == test["crystal_system"]
    of_each = 100 * right.groupby(test["crystal_system"].astype(int)).mean()
    named = {CRYSTAL_SYSTEMS[index]: value for index, value in of_each.items()}
    return named | {"mean": of_each.mean(), "all": 100 * right.mean()}
