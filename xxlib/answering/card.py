"""The model card of a released checkpoint: a README.md made of what was measured, never by hand."""

from xxlib.datasets.targets import TARGETS
from xxlib.training.records import JOINED

CARD = """\
# {name}

{what} of an inorganic crystal, from its composition, its powder X-ray pattern
(Cu Kα, 5-90 degree), or both. Made by `python -m xxlib.release`; every number below is from `metrics.json`.

| | |
|---|---|
| model | {architecture}, {parameters:,} parameters, weights in half precision, {members} |
| targets | {targets} |
{trained}
| split | {split}; chosen and calibrated on `val` ({n_val:,}), measured on `test` ({n_test:,}) |
| training | {samples:,} samples, seed {seeds}, commit {commits}, {hardware} |
| licence of the weights | MIT; {licence} |

## Measured on `test`

{results}
Intervals and sets are split-conformal at {level:.0f} %: `coverage` is the share that holds the truth. `surest 50%` is
what remains where the less sure half is refused.
{contradiction}

![what is left where the least sure are refused](refusal.png)

## Limits

- The patterns of this table are simulated, {effects}.
  What a measured pattern loses against them is in `data/results`.
- {functional}
- Ordered inorganic crystals with the elements in `calibration.json`; no molecules, no amorphous samples, no mixtures.
- Intervals hold for samples that are like the training data: the answer warns where a sample is unlike them.
"""
LABELS = {
    "data/demo": (
        "generated crystals with CHGNet labels, not DFT",
        "Energies are those of CHGNet for unrelaxed generated crystals: no result about materials rests on them.",
        "the crystals and labels are this project's",
    ),
    "data/mp36k": (
        "DFT labels of the Materials Project (MEGNet MP-2018.6.1 release)",
        "Energies and band gaps are those of PBE (formation energies with the Materials Project's corrections): PBE "
        "band gaps are smaller than measured ones, by about 40 % in semiconductors.",
        "the data are the Materials Project's, CC BY 4.0 (cite Jain et al., APL Materials 1, 011002 (2013))",
    ),
}
OTHER_LABELS = ("see `metrics.json`", "Labels are those of the dataset's source.", "that of the data: see their source")


def model_card(name, metrics):
    """Text of README.md from metrics.json's dict."""
    runs, counts = metrics["runs"], metrics["dataset"]["counts"]
    config, answered = runs[0]["config"], [run["config"]["objectives"]["targets"] for run in runs]  # by each member
    data, effects = config["data"], config["data"]["effects"]
    targets = {name for names in answered for name in names}
    labels, functional, licence = LABELS.get(data["dataset"], OTHER_LABELS)
    members = "one model" if len(runs) == 1 else f"{len(runs)} models: {'; '.join(map(', '.join, answered))}"
    titles = [TARGETS[name].title for name in TARGETS if name in targets]
    swapped = metrics["contradiction"]
    contradiction = swapped and (
        f"Swapped patterns are told from right ones with an AUROC of {swapped['AUROC']:.3f};\nthe warning comes for "
        f"{swapped['noticed (%)']:.0f} % of them, and for {swapped['false alarms (%)']:.1f} % of right pairs."
    )
    return CARD.format(
        name=name,
        architecture="XxaCT-NN " + JOINED.join(config["model"]["encoders"]),
        parameters=sum(run["parameters"] for run in runs),
        members=members,
        targets=", ".join(f"{t} ({TARGETS[t].unit})" if TARGETS[t].unit else t for t in TARGETS if t in targets),
        what=" or ".join(filter(None, (", ".join(titles[:-1]), titles[-1]))).capitalize(),
        trained="\n".join(f"| {_trained(run, counts, labels, len(runs) > 1)} |" for run in runs),
        split=f"by {data['split']}",
        n_val=counts["val"],
        n_test=counts["test"],
        samples=sum(run["samples"] for run in runs),
        seeds=", ".join(str(run["config"]["seed"]) for run in runs),
        commits=", ".join(dict.fromkeys(run["commit"] for run in runs)),
        hardware=runs[0]["hardware"],
        licence=licence,
        results=_table(metrics["test"]),
        level=metrics["level (%)"],
        contradiction=contradiction or "",
        functional=functional,
        effects=f"ideal or under the effects `{effects}` of a diffractometer" if effects else "and ideal",
    )


def _trained(run, counts, labels, several):
    """What a member was trained on, for a line of the card."""
    config, data = run["config"], run["config"]["data"]
    said = f"{data['n_train'] or counts['train']:,} crystals of `{data['dataset']}`: {labels}"
    if data.get("also"):
        others = ", ".join(f"`{folder}`" for folder in data["also"])
        said += f"; and those of {others} whose formulas are in no other split"
    if config["initial"]:
        before = f", trained on {', '.join(f'`{folder}`' for folder in run['began_on'])}" if run.get("began_on") else ""
        said += f"; it begins with the weights of `{config['initial'].split('/')[-1]}`{before}"
    return f"trained on{', ' + ' and '.join(config['objectives']['targets']) if several else ''} | {said}"


def _table(measured):
    """A metric a row, a combination of inputs a column."""
    names = list(measured)
    lines = ["| from | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    for metric in measured[names[0]]:
        values = " | ".join(f"{measured[name][metric]:,.4g}" for name in names)
        lines.append(f"| {_with_unit(metric)} | {values} |")
    return "\n".join(lines) + "\n"


def _with_unit(metric):
    target, _, rest = metric.partition(" ")
    unit = TARGETS[target].unit if rest.startswith(("mae", "mean width")) else ""
    return metric + (f" ({unit})" if unit else "")
