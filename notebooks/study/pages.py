"""The pages that say what was measured, rendered from templates/ and what the runs left:  python -m study.pages

results.md becomes data/results/README.md; limits.md and findings.md become parts of README.md.  Every number of theirs
is looked up or computed by a function of this module, none is typed.  Where a sentence says that one model is ahead of
another, or that no difference shows, the crystals of `test` must agree, or nothing is rendered.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np

from study import (
    archive,
    claims,
    committee,
    evidence,
    fusions,
    growth,
    interactions,
    knowledge,
    measured_stand_ins,
    modalities,
    mp90k,
    paper,
    plus,
    polymorphs,
    power_laws,
    pretraining,
    representations,
    scaling,
    stand_ins,
    structures,
    tables,
    texts,
)
from study.measured import NEW
from xxlib import PROJECT
from xxlib.answering.predictor import CHECKPOINTS
from xxlib.answering.predictor import DEFAULT as RELEASED
from xxlib.candidates.known import DEFAULT as KNOWN
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS, crystal_system
from xxlib.datasets.targets import TARGETS
from xxlib.training.metrics import limit_of_composition

TEMPLATES = Path(__file__).parent / "templates"
README, RESULTS = PROJECT / "README.md", PROJECT / "data" / "results" / "README.md"
CARD = CHECKPOINTS / RELEASED / "metrics.json"
# A part of README.md that is rendered, from the template of its name.
PART = re.compile(r"(<!-- (\w+): rendered by study.pages -->\n).*?(<!-- end of \2 -->\n)", re.DOTALL)
DECIMALS = {"e_form": 1, "band_gap": 3, "crystal_system": 1, "space_group": 1}
DECIMALS |= {"log_bulk_modulus": 4, "log_shear_modulus": 4}
METRICS = {"e_form": "mae", "band_gap": "mae", "crystal_system": "accuracy", "space_group": "accuracy"}
COLUMNS = dict(zip(METRICS, (tables.E_FORM, tables.BAND_GAP, tables.CRYSTAL_SYSTEM, tables.SPACE_GROUP)))
# The runs that a page names often.
RUNS = {
    "scratch": "bimodal-multi-s0",
    "contrastive": "bimodal-multi-from-contrastive-s0",
    "mxm": "bimodal-multi-from-mxm-s0",
    "both": "bimodal-multi-from-both-s0",
    "longer": "bimodal-multi-steps16000-s0",
    "quarter": "bimodal-e_form-steps2000-s0",
    "quarter_both": "bimodal-e_form-steps2000-from-both-steps2000-s0",
    "frozen": "{}-band_gap-steps2000-frozen-from-{}-s0",
    "sized": "{}-e_form-steps4000-n{}{}-s0",
    "memory": "{}-{}-steps4000-random-s0",
    "shot": "{}-band_gap-nomad2018-steps1000-n{}{}-s0",
}


@dataclass(frozen=True)
class Difference:
    """How far one model is ahead of another, in the unit of the tables, and half of its 95 % interval."""

    value: float
    half: float
    decimals: int = 1

    @property
    def counts(self):
        """Whether the interval leaves out zero."""
        return abs(self.value) > self.half

    def __str__(self):
        return f"{self.value:.{self.decimals}f} ± {self.half:.{self.decimals}f}"


def number(run, target, **where):
    """A metric of a run in the unit of the tables; where: split, given, exchanged, as archive.value takes them."""
    return archive.value(run, METRICS[target], target, **where)


def value(run, target, **where):
    """number() as a page shows it."""
    shown, decimals = number(run, target, **where), DECIMALS[target]
    return f"{shown:.{0 if shown > 300 and decimals == 1 else decimals}f}"


def mean(name, target, seeds=10, **where):
    """Mean and standard deviation over the seeds of a run that there are, of its first `seeds`."""
    names = [f"{name}-s{seed}" for seed in range(seeds)]
    values = [number(name, target, **where) for name in names if archive.read(name)]
    decimals = DECIMALS[target]
    return f"{np.mean(values):.{decimals}f} ± {np.std(values, ddof=1):.{decimals}f}"


def reached(name, target, **where):
    """mean() over the seeds that there are, value() where there is one, a dash where there is none."""
    there = [seed for seed in range(10) if archive.read(f"{name}-s{seed}")]
    if not there:
        return "–"
    return mean(name, target, **where) if len(there) > 1 else value(f"{name}-s{there[0]}", target, **where)


def in_paper(table, column, decimals=None, **of):
    """What the paper has, as paper.said; a dash where it has nothing."""
    try:
        return paper.said(table, column, decimals, **of)
    except KeyError:
        return "–"


def of_start(name, modalities, start):
    """The row of Table 4 or 5 of our model with these modalities from a start, by the paper's name for it."""
    ours = rows(name, modalities=modalities, preset="small")
    return next(one for one in ours if paper_start(one["start"]) == start and one["targets"] != "crystal_system")


def paper_start(start):
    """How the paper calls a start of ours: "pretrain-both-s0" is its "contrastive + mxm"."""
    names = {config.name: name for name, config in pretraining.starts().items()}
    return {"both": "contrastive + mxm"}.get(name := names.get(start, start), name)


def gain(run, other, target):
    """How far a run is ahead of another on `test`: a Difference, crystal by crystal."""
    return Difference(*claims.paired(other, run, target), DECIMALS[target])


def ahead(run, other, target):
    """gain() where it counts.  Raises ValueError where it does not: the sentence around it is not true."""
    difference = gain(run, other, target)
    if not difference.counts or difference.value < 0:
        raise ValueError(f"{run} is not ahead of {other} for {target}: {difference}")
    return difference


def level(run, other, target):
    """gain() without its sign where no difference shows.  Raises ValueError where one does."""
    difference = gain(run, other, target)
    if difference.counts:
        raise ValueError(f"{run} and {other} are not level for {target}: {difference}")
    return Difference(abs(difference.value), difference.half, difference.decimals)


def percent_less(run, other):
    """By how many % the error of E_f of a run is below that of another."""
    return round(100 * (1 - number(run, "e_form") / number(other, "e_form")))


def percent_more(run):
    """By how many % the error of E_f rises with the patterns of other crystals."""
    return round(100 * (number(run, "e_form", exchanged="xrd") / number(run, "e_form") - 1))


def rows(name, /, **where):
    """The rows of a committed table whose columns have the values of `where`, as dicts."""
    table = tables.committed(name)
    for column, wanted in where.items():
        table = table[table[column] == wanted]
    return table.to_dict("records")


def row(name, /, **where):
    """The one row of a committed table.  Raises ValueError where there are others, or none."""
    (only,) = rows(name, **where)
    return only


def turned(name, label, column, values, less):
    """A committed table with a row a label and a column a value: label of a row -> cells, the error and in brackets
    how much less it is than that of another, from a column in %; a dash where it was not measured."""
    found = {}
    for one in rows(name):
        if one[column] in values and np.isfinite(one["test mae"]):
            cells = found.setdefault(label(one), ["–"] * len(values))
            by = f" ({one[less]:.1f} %)" if np.isfinite(one[less]) and one[less] else ""
            shown = f"{one['test mae']:.0f}" if one["test mae"] >= 100 else f"{one['test mae']:#.3g}"
            cells[values.index(one[column])] = shown + by
    return found


def crystals(split, dataset="data/mp36k"):
    """The number of crystals of a split by formula."""
    return int((archive.crystals(dataset)["split"] == split).sum())


def parameters(run):
    """Millions of parameters of a run."""
    return f"{archive.read(run).parameters / 1e6:.2g}"


def surprise(run, target):
    """The cross-entropy on `val` while a run trained: (n,) nat."""
    return archive.read(run).curve("log_loss", target)[1]


def limit(target, dataset="data/mp36k"):
    """What a model of the composition reaches on `test` that knows the best answer for each formula."""
    test = archive.crystals(dataset).query("split == 'test'").dropna(subset=target)
    kind = TARGETS[target].kind
    reached = TARGETS[target].shown(METRICS[target])[1] * limit_of_composition(test["formula"], test[target], kind)
    return f"{reached:.{DECIMALS[target]}f}"


def of_space_groups(run):
    """% of `test` whose space group is among the likeliest that are kept, and whose crystal system that group has."""
    table = archive.predictions(run).dropna(subset="space_group")
    true, likeliest = table["space_group"].to_numpy(int), np.stack(table["space_group_likeliest"])
    systems = [
        [CRYSTAL_SYSTEMS.index(crystal_system(group + 1)) for group in column] for column in (true, likeliest[:, 0])
    ]
    return {
        "kept": likeliest.shape[1],
        "among": 100 * (likeliest == true[:, None]).any(1).mean(),
        "system": 100 * np.equal(*systems).mean(),
    }


def spread(target):
    """Standard deviations over seeds in Table 1 of models of one target: the smallest and the largest."""
    spreads = [row[f"+- {COLUMNS[target]}"] for row in rows("table_1", targets=target)]
    spreads = [spread for spread in spreads if np.isfinite(spread)]
    return " to ".join(f"{end:.{DECIMALS[target]}f}" for end in (min(spreads), max(spreads)))


def measured(name, /, **where):
    """The row of a table of measured patterns: of the released model, both inputs, "measured", where not said else."""
    return row(name, **{"model": RELEASED, "given": "composition + xrd", "patterns": "measured"} | where)


def known(setting, patterns="measured", given="formula", dataset="mp36k", library=KNOWN, together=False):
    """What known crystals know of `test` or of measured patterns: the row of a kind of question; together: with the
    released model."""
    given = f"{given}, {RELEASED}" if together else given
    return row("known_crystals", given=given, setting=setting, patterns=patterns, dataset=dataset, library=library)


def both_known(**where):
    """The rows of known crystals alone and with the released model."""
    return known(**where), known(**where, together=True)


def right(row):
    """How many crystal systems and space groups are right, in %, as a cell of a table."""
    return " / ".join(f"{row[name]:.1f}" for name in ("crystal system (%)", "space group (%)"))


def released(view):
    """What the released model reaches on `test` in a view of its model card, by the card's names."""
    return json.loads(CARD.read_text())["test"][view]


def contradiction(name):
    """How well the released model tells that formula and pattern do not belong together."""
    return json.loads(CARD.read_text())["contradiction"][name]


def laws():
    """Line of Figure 3 -> the PowerLaw of its error of E_f against training crystals."""
    return scaling.points()[1]


def findings():
    """What the runs say of the paper's claims: pairs of the number of training crystals and a claims.Finding."""
    found = {
        crystals("train"): [one for of in (modalities, pretraining, representations, scaling) for one in of.findings()],
        mp90k.ENERGIES: mp90k.findings() + growth.findings(),
    }
    pairs = [(n, finding) for n, findings_of in found.items() for finding in findings_of]
    order = list(dict.fromkeys(finding.claim for _, finding in pairs))
    return sorted(pairs, key=lambda pair: order.index(pair[1].claim))


def noise(*models):
    """Accuracy of models of the noise study with both inputs: without any effect, and where each does its worst."""
    table = tables.committed("noise")
    table = table[table["given"] == "composition + xrd"]
    wide = table.pivot_table(index=["effect", "value"], columns="run", values="accuracy (%)")[list(models)].dropna()
    ideal = wide.loc[("zero shift (degree)", 0)]
    acting = wide[(wide != ideal).any(axis=1)]
    worst = acting.loc[[part.sum(axis=1).idxmin() for _, part in acting.groupby("effect")]].reset_index()
    return [{"effect": "none", "value": ""} | dict(ideal), *worst.to_dict("records")]


def environment():
    """What the templates are rendered with."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    made.filters |= {
        "fixed": lambda number, decimals=1: f"{number:.{decimals}f}",
        "decimals": lambda number, target: f"{number:.{DECIMALS[target]}f}",
        "count": lambda number: f"{int(number):,}",
        "general": lambda number: f"{number:g}" if number != "" else "",
        "shown": lambda number: f"{number:.3g}" if number < 1000 else f"{number:.0f}" if number == number else "–",
        "beside": lambda ours, theirs: ours if theirs == "–" else f"{ours} ({theirs})",
        "spoken": lambda words: words.replace("composition + xrd", "both"),
        "in_words": {"composition + xrd": "both", "composition": "composition alone", "xrd": "pattern alone"}.get,
        "signed": lambda pair, target="e_form": "{:+.{n}f} ± {:.{n}f}".format(*pair, n=DECIMALS[target]),
        "listed": lambda parts: " and ".join(", ".join(map(str, parts)).rsplit(", ", 1)),
    }
    functions = (
        value, number, mean, gain, ahead, level, percent_less, percent_more, rows, row, crystals, parameters,
        surprise, limit, of_space_groups, spread, measured, laws, findings, noise, reached, in_paper, released, known,
        both_known, right, contradiction, of_start, paper_start, turned,
    )  # fmt: skip
    made.globals |= RUNS | {function.__name__: function for function in functions}
    made.globals |= {target.upper(): column for target, column in COLUMNS.items()}
    made.globals |= {"NEW": NEW, "crossing": power_laws.crossing, "classes": lambda target: TARGETS[target].width}
    made.globals |= {"paper": paper, "RELEASED": RELEASED, "SYSTEMS": CRYSTAL_SYSTEMS, "ENERGIES": mp90k.ENERGIES}
    experiments = (mp90k, growth, polymorphs, plus, structures, stand_ins, fusions, texts, knowledge, interactions)
    experiments += (measured_stand_ins, evidence, committee)
    made.globals |= {module.__name__.rpartition(".")[2]: module for module in experiments}
    return made


def render(template):
    """The text of a template, by its name."""
    return environment().get_template(template).render()


def with_parts(readme):
    """The text of README.md with its rendered parts as they are today."""
    return PART.sub(lambda found: found[1] + render(f"{found[2]}.md") + found[3], readme)


def main():
    RESULTS.write_text(render("results.md"))
    README.write_text(with_parts(README.read_text()))


if __name__ == "__main__":
    main()
