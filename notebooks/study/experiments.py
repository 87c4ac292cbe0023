"""The experiments, important ones first, and what is made of all of them: runs, tables, figures, findings."""

import importlib

import pandas as pd

from study import archive, claims, growth, mp90k, paper
from study.archive import RESULTS
from xxlib import plots
from xxlib.training import records

NAMES = "modalities predictors pretraining representations transfer scaling encoders crystal_systems splits families "
NAMES += (
    "other_pretrainings few_labels learning_rates mp90k polymorphs growth leads plus readers known_crystals fusions "
)
NAMES += (
    "structures stand_ins texts knowledge interactions systems per_task committee evidence measured noise throughput"
)
EXPERIMENTS = tuple(importlib.import_module(f"study.{name}") for name in NAMES.split())

# What figures show; a name stands for all that begin with it.
CAPTIONS = {
    "figure_2": "Latent spaces: a dot a crystal, on the first two principal components.",
    "figure_3": "Error against the number of training crystals; power laws and their 95 % bands.",
    "figure_4": "Which elements the crystals hold.",
    "figure_5": "How many crystals each crystal system has.",
    "figure_6": "Learning curves after each start: the mean over seeds and, of several, their range.",
    "unimodal": "Learning curves of one modality, a seed each; the legend has the last value.",
    "e_form_learning": "Learning curves, a seed each; the legend has the last value.",
    "crystal_system_learning": "Learning curves, a seed each; the legend has the last value.",
    "e_form_parity": "Predicted against true formation energies.",
    "crystal_system_confusion": "Which crystal system is taken for which: % of the true one, and crystals.",
    "pretraining": "What pretraining learns, a seed each; the legend has the last value.",
    "hidden": "What pretrainings gain over none; 95 % intervals over the crystals, a seed each.",
    "fusions": "What another fusion gains over the paper's, and pretraining over none; 95 % intervals, a seed each.",
    "knowledge": "What a start takes off the error of a student of formulas; 95 % intervals, a seed each.",
    "interactions": "What pairs of kinds of elements add to E_f in the eyes of a run; means over formulas of test.",
    "text_attention": "How alike the atoms of a crystal attend to the words of its text, layer by layer; 256 of val.",
    "few_shot": "Error of the band gap against the number of labels, a seed each, without intervals.",
    "readers": "What a reader of patterns gains by each change and those before it; 95 % intervals, a seed each.",
    "measured": "Accuracy on measured and on simulated patterns; 95 % intervals.",
    "noise": "What each effect of a diffractometer costs; accuracies with 95 % bands.",
}


def planned():
    """Every run of `small` by its name, in the order in which they are trained."""
    having = [experiment for experiment in EXPERIMENTS if hasattr(experiment, "runs")]
    return {config.name: config for experiment in having for config in experiment.runs()}


def tidy(place=RESULTS):
    """The final metrics of every run, in the unit of the target: one row a run and metric, with what a record says."""
    finished = [archive.read(name, place) for name in archive.names(place)]
    rows = [{"run": record.name} | metric for record in finished for metric in record.metrics]
    return pd.DataFrame(rows, columns=["run", *records.KEYS]).drop(columns="step")


def write_tables(folder=None, place=RESULTS):
    """Every table that follows from the records: what is finished, what is missing, and the paper's rows beneath."""
    folder = folder or RESULTS
    tables = {one.TABLE: one.table(place=place) for one in EXPERIMENTS if hasattr(one, "TABLE")}
    for name, table in tables.items():
        paper.beneath(table, name).to_csv(folder / f"{name}.csv", index=False, float_format="%.5g")
    tidy(place).to_csv(folder / "runs.csv", index=False, float_format="%.7g")


def draw(place=RESULTS):
    """Every figure of the committed runs, into figures/mp36k, and README.md there, what each is of; their names."""
    folder, drawn, otherwise = archive.dataset("small"), {}, {}
    for experiment in (one for one in EXPERIMENTS if hasattr(one, "figures")):
        figures = experiment.figures(place=place)
        drawn |= figures
        otherwise |= dict.fromkeys(figures, experiment.figures.__doc__.split("\n")[0])
    of = {"figure_4": archive.label("small"), "figure_5": archive.label("small")}  # notebook 01 draws them
    of |= {name: figure.get_suptitle() for name, figure in drawn.items()}
    for name, figure in drawn.items():
        path = plots.save_figure(figure, f"{folder}/{name}")
    lines = [f"# Figures of {folder}", "", "| figure | what it shows | of |", "|---|---|---|"]
    for name in sorted(of):
        shows = next((said for begins, said in CAPTIONS.items() if name.startswith(begins)), otherwise.get(name))
        shows = " ".join(filter(None, [shows, paper.captions().get(name)]))
        lines.append(f"| [{name}]({name}.png) ([PDF]({name}.pdf)) | {shows} | {' '.join(of[name].split())} |")
    (path.parent / "README.md").write_text("\n".join(lines) + "\n")
    return list(drawn)


def findings(place=RESULTS):
    """What every experiment has found: Findings of the paper's claims, sentences of the rest, by experiment."""
    named = zip(NAMES.split(), EXPERIMENTS)
    return {name: one.findings(place=place) for name, one in named if hasattr(one, "findings")}


def outcomes(experiment, place=RESULTS):
    """What became of each claim of an experiment on mp36k and on mp90k, whose runs are fewer: sentences."""
    first, then, said = experiment.findings(place=place), [*mp90k.findings(place), *growth.findings(place)], []
    for claim in dict.fromkeys(finding.claim for finding in first):
        parts = []
        for crystals, findings in (("28,000", first), ("88,000", then)):
            of_claim = [finding for finding in findings if finding.claim == claim]
            outcome = claims.outcome(of_claim) if of_claim else "was not tried"
            parts.append(f"With {crystals} training crystals it {outcome}.")
        said.append(f"{claim}. {' '.join(parts)}")
    return said
