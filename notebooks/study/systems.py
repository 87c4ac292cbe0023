"""What became of the claims of other systems of this literature, each a configuration of our model?

A claim is that one run is better than another; it holds where the 95 % interval of the difference, over the crystals of
mp36k's `test`, leaves out zero, and further seeds, where there are some, say the same.  Size and budget are ours, which
are smaller than the authors'.  So are two questions: whether as many steps with labels give as much as a pretraining,
and what a language model gives beside our own encoder.
Cost: none of its own; the runs are those of fusions.py, texts.py and knowledge.py.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from study import archive, fusions, knowledge, texts
from study.archive import RESULTS
from study.claims import paired
from study.tables import origin, whole
from xxlib.datasets.targets import TARGETS
from xxlib.training.config import RunConfig

TABLE = "systems"
GAIN = "gain (meV/atom or points)"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """That a run of a system is better than another run."""

    system: str
    source: str
    claim: str
    run: RunConfig
    than: RunConfig
    target: str = "e_form"
    again: tuple[tuple[RunConfig, RunConfig], ...] = ()  # run and other with further seeds


def claims():
    """The claims, in the order of the notebooks."""
    words, students = texts.lines(), knowledge.lines()
    relational = {start.name: fusions.tuned("crystal_system", start=start) for start in fusions.starts()}
    contrastive, alike = relational.values()
    found = []
    for target in fusions.SHOWN:
        paper = fusions.fused(fusions.PAPER, target)
        found += [
            Claim(system="XxaCT-NN", source="arXiv 2507.01054", run=paper, than=fusions.fused(word, target),
                  target=target, claim=f"cross-attention is better than {in_words}")
            for word, in_words in (("concatenated", "summaries side by side"), ("late", "the mean of two answers"))
        ]  # fmt: skip
        found += [
            Claim(system=system, source=source, run=fusions.fused(word, target), than=paper, target=target,
                  claim=f"{system} are better than one way for all samples")
            for system, source, word in (("gates", "gated fusion", "gated"), ("experts", "arXiv 1701.06538", "experts"))
        ]  # fmt: skip
    found.append(Claim(
        system="relational pretraining", source="MMFRL", run=alike, than=contrastive, target="crystal_system",
        claim="similarities between samples teach more than contrastive pairs",
    ))  # fmt: skip
    structure, alone, attention = "structure", "text", "MatMMFuse: one layer, asked by the text"
    masked, nothing = "CAST", "CAST without masked nodes"
    of_words = [
        ("CAST", "arXiv 2502.06836", "structure and text are better than the structure", masked, structure),
        ("CAST", "arXiv 2502.06836", "masked node prediction makes a difference", masked, nothing),
        ("CrysMMNet", "UAI 2023", "a text beside the structure makes it better", "CrysMMNet: concatenation", structure),
        ("MultiMat", "arXiv 2312.00111", "contrastive pretraining makes the structure's encoder better",
         "MultiMat: structure after contrastive", structure),
        ("MatMMFuse", "arXiv 2505.04634", "attention over both is better than the structure", attention, structure),
        ("MatMMFuse", "arXiv 2505.04634", "attention over both is better than the text", attention, alone),
    ]  # fmt: skip
    for of, targets in (("", texts.BOTH["targets"]), ("moduli, ", texts.OF_MODULI["targets"])):
        seeds = [[words[f"{line}, {seed} seed"] for line in (masked, nothing)] for seed in texts.FURTHER if not of]
        found += [
            Claim(system=system, source=source, claim=claim, run=words[of + line], than=words[of + than], target=target,
                  again=tuple(map(tuple, seeds)) if than == nothing else ())
            for target in targets for system, source, claim, line, than in of_words
        ]  # fmt: skip
    _, ours, frozen, adapted = texts.with_language_model().values()
    for target in texts.BOTH["targets"]:
        found += [
            Claim(system=system, source=source, claim=claim, run=run, than=than, target=target)
            for system, source, claim, run, than in (
                ("CAST", "arXiv 2502.06836", "masked node prediction is better than as many steps with labels",
                 words[masked], words[f"{nothing}, twice the steps"]),
                ("CrysMMNet", "UAI 2023", "a frozen language model is better than an encoder of our own", frozen, ours),
                ("CrysMMNet", "UAI 2023", "a language model is better adapted by LoRA than frozen", adapted, frozen),
            )
        ]  # fmt: skip
    for task, target in (("E_f", "e_form"), ("band gap", "band_gap")):
        found += [
            Claim(system="imKT", source="arXiv 2511.03371", run=students[task, start],
                  than=students[task, knowledge.TWICE], target=target,
                  again=((students[f"{task}, second seed", start], students[f"{task}, second seed", knowledge.TWICE]),)
                  if task == "E_f" else (),
                  claim=f"a student {start} is better than from scratch, in as many steps together")
            for start in (knowledge.TAUGHT, knowledge.BY_STRUCTURE)
        ]  # fmt: skip
    return found


def table(configs=None, place=RESULTS):
    """A row a claim: the errors of both runs (of classes, % that is wrong), the gain and half of its 95 % interval, and
    what became of it: "held", "did not hold", "no difference shows", "seeds disagree", or "open" where a run is
    missing.  Errors and gain are those of the first seed."""
    rows = []
    for one in claims():
        unit = "%" if TARGETS[one.target].kind == "classification" else TARGETS[one.target].error_unit
        row = {"system": one.system, "source": one.source, "claim": one.claim, "target": one.target, "unit": unit}
        errors = [archive.errors(run.name, one.target, place) for run in (one.run, one.than)]
        said = [None if error is None else error.mean() for error in errors]
        gain, half = (None, None)
        if None not in said:
            gain, half = paired(one.than.name, one.run.name, one.target, place)
        row |= {
            "error": said[0],
            "of the other": said[1],
            GAIN: gain,
            f"+- {GAIN}": half,
            "outcome": _of_seeds(one, gain, half, place),
        }
        rows.append(row | {"run": one.run.name, "other": one.than.name} | origin([one.run], place))
    return whole(pd.DataFrame(rows))


def outcome(gain, half):
    """What became of a claim whose gain, and half of its 95 % interval, these are; None: a run is missing."""
    if gain is None:
        return "open"
    return "held" if gain > half else "did not hold" if gain < -half else "no difference shows"


def _of_seeds(claim, gain, half, place):
    """outcome() of a claim, where its further seeds that have finished say the same."""
    pairs = [paired(than.name, run.name, claim.target, place) for run, than in claim.again]
    others = {outcome(*pair) for pair in pairs if np.isfinite(pair[0])}
    own = outcome(gain, half)
    return own if own == "open" or others <= {own} else "seeds disagree"


def findings(place=RESULTS):
    """What became of each claim, a sentence each."""
    said = []
    for row in table(place=place).to_dict("records"):
        if row["outcome"] == "open":
            continue
        unit = "points" if row["unit"] == "%" else row["unit"]
        measured = f"{row[GAIN]:+.3g} ± {row[f'+- {GAIN}']:.2g} {unit}"
        said.append(
            f"{row['system']} ({row['source']}), {row['target']}: {row['claim']}: {row['outcome']} ({measured})."
        )
    return said or ["Other systems: no run of theirs is finished."]
