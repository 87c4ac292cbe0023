"""Are crystals of one crystal system together in what the models have learned?  Table 5 and Figure 2: silhouettes and
principal components of the CLS vectors of six models of the same two targets.

Cost: 0 runs, those of modalities and pretraining; "smoke": 5 runs, 60 s on two.
"""

import pandas as pd

from study import archive, claims, latent, paper, pretraining
from study.archive import RESULTS
from study.tables import ORIGIN, finished, groups, model_of, origin, planned_table, start_of
from study.variants import variant
from xxlib import plots
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.training.runs import RUNS

TABLE = "table_5"
CLAIM = "Crystal systems are further apart after pretraining"


def runs(preset="small"):
    """One modality each, both from scratch, both from each pretraining; those from scratch with two seeds.

    With "smoke" the pretraining is among them.
    """
    begun = pretraining.starts(preset)
    short, seeds = (pretraining.SMOKE, (0,)) if preset == "smoke" else ({}, (0, 1))
    models = ("composition", "xrd", "bimodal")
    scratch = [variant(preset, model, "multi", seed=seed, **short) for seed in seeds for model in models]
    after = [variant(preset, "bimodal", "multi", start, **short) for start in begun.values()]
    return [*(begun.values() if preset == "smoke" else ()), *scratch, *after]


def table(configs=None, place=RESULTS):
    """Silhouettes of the crystal systems: mean over systems, and each.

    In all dimensions and, where it says so, in the first two principal components; means over seeds, beside the first
    two with the standard deviation of one run.
    """
    rows = []
    for group in groups(configs or runs(), lambda c: (str(c.model), c.objectives.targets, c.initial)):
        tables = {config.name: archive.latent(config.name, place) for config in finished(group, place)}
        scores = [latent.mean_silhouettes(of_one) for of_one in tables.values() if of_one is not None]
        first, rest = planned_table(group[:1], place).iloc[0], origin(group, place)
        row = {"model": model_of(first), "start": start_of(group[0])}
        row |= {name: first[name] for name in ("modalities", "targets")}
        lacking = [f"latent.parquet of {name}" for name, of_one in tables.items() if of_one is None]
        if lacking:
            rest["note"] = "; ".join([rest["note"]] * bool(rest["note"]) + [f"missing: {', '.join(lacking)}"])
        if scores:
            means = pd.DataFrame([of_one.loc["mean"] for of_one in scores])
            for space in latent.SPACES:
                row |= {f"mean, {space}": means[space].mean(), f"+- {space}": means[space].std()}
            row |= pd.DataFrame([of_one["all dimensions"].drop("mean") for of_one in scores]).mean().to_dict()
            row |= {"crystals": means["crystals"].iloc[0]}
        rows.append(row | rest)
    columns = ["model", "modalities", "targets", "start"]
    columns += [name for space in latent.SPACES for name in (f"mean, {space}", f"+- {space}")]
    columns += [*CRYSTAL_SYSTEMS, "crystals", *ORIGIN]
    return pd.DataFrame(rows, columns=columns).astype({"crystals": "Int64"})


def findings(place=RESULTS, table_5=None):
    """That the crystal systems are further apart in pretrained representations: one Finding."""
    table_5 = table(place=place) if table_5 is None else table_5
    of, of_paper = "the mean silhouette", paper.numbers(TABLE).query("column == 'mean, all dimensions'")
    of_paper = _listed(zip(of_paper["modalities"], of_paper["start"], of_paper["value"]))
    rows = table_5.set_index(table_5["modalities"] + ", " + table_5["start"])["mean, all dimensions"].dropna()
    both = pretraining.starts()["both"]
    needed = ("composition + xrd, scratch", f"composition + xrd, {both.name}")
    if not set(needed) <= set(rows.index):
        return [claims.unfinished(CLAIM, of, [name for name in needed if name not in rows.index], of_paper)]
    first = [variant("small", "bimodal", "multi", start).name for start in (None, both)]
    verdict = claims.counted(*latent.difference(*(archive.latent(name, place) for name in first)))
    said = _listed((*name.split(", "), value) for name, value in rows.items())
    return [claims.Finding(CLAIM, of, said, verdict, of_paper)]


def _listed(scores):
    """Modalities, start and silhouette of several models, in words."""
    started = {config.name: pretraining.STARTED[name] for name, config in pretraining.starts().items()}
    started |= pretraining.STARTED | {"contrastive + mxm": pretraining.STARTED["both"]}
    return "; ".join(f"{claims.spoken(given)} {started[start]}: {value:.2g}" for given, start, value in scores)


def figures(configs=None, place=RESULTS):
    """Figure 2: a latent space a model, of the first seeds."""
    configs = configs or runs()
    names = {None: ""} | {
        f"data/runs/{c.name}": f" from {name}" for name, c in pretraining.starts(configs[0].preset).items()
    }
    panels = {}
    for config in finished([c for c in configs if c.objectives.targets and c.seed == 0], place):
        points = archive.latent(config.name, place)
        if points is not None:
            name = " + ".join(config.model.modalities) + names[config.initial]
            panels[claims.spoken(name)] = (
                points[["PC 1", "PC 2"]].to_numpy(),
                points["crystal_system"],
                points.attrs["variance"],
            )
    return {"figure_2": plots.latent(panels, f"{archive.label(configs[0].preset)}, test")} if panels else {}


# ---------------------------------------------------------------- of runs trained here


def describe(configs, place):
    """Leave beside each run trained here what table and figure need of its `test`: latent.describe."""
    for config in finished(configs, place) if place != RESULTS else ():
        if config.objectives.targets:
            latent.describe(place / config.name)


def neighbours(configs, material):
    """The crystals of `test` nearest to a material, by its id or formula, in the model of both inputs from scratch.

    None where its weights are not in data/runs.
    """
    folder = _of_both(configs)
    return latent.neighbours(*latent.of_run(folder), material) if folder else None


def umap(configs, seed=0):
    """The same vectors by UMAP: figures as in figures(), none where the weights are not in data/runs."""
    folder = _of_both(configs)
    if folder is None:
        return {}
    vectors, dataset, rows = latent.of_run(folder)
    panel = {
        claims.spoken("composition + xrd"): (latent.umap(vectors, seed), dataset.column("crystal_system")[rows], None)
    }
    return {"umap": plots.latent(panel, f"UMAP, {archive.label(configs[0].preset)}, test")}


def _of_both(configs):
    """Folder of the run of both inputs from scratch, where its weights are."""
    names = [c.name for c in configs if len(c.model.modalities) > 1 and c.objectives.targets and not c.initial]
    return next((RUNS / name for name in names if (RUNS / name / "model.safetensors").exists()), None)
