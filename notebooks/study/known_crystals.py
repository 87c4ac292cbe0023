"""How often is a pattern explained by the right known crystal, and is it known how surely?

    PYTHONPATH=notebooks .venv/bin/python -m study.known_crystals fit
    PYTHONPATH=notebooks .venv/bin/python -m study.known_crystals join CHECKPOINT
    PYTHONPATH=notebooks .venv/bin/python -m study.known_crystals judge CHECKPOINT
    PYTHONPATH=notebooks .venv/bin/python -m study.known_crystals measured CHECKPOINT PATTERNS.parquet ...

fit: asks for crystals of mp36k's `val` and fits by them how candidates are ranked, into ranking.json of the library
that is shipped; known_crystals_val.csv says how often that is right, cross-validated.  join: fits how a network and
known crystals are believed together, into known.json of the checkpoint.  judge: asks for crystals of `test`, once.
measured: asks for measured patterns, once, and says so in measured_log.csv.  Answers are kept in
data/results/known_crystals; killed, the command goes on where it was.  What known crystals alone say of measured
patterns is of no checkpoint: it is asked again only where patterns or library are others, or with --again.

asking.py says what the settings are.
Cost: 1 to 3 s a question.
"""

import argparse
import datetime
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from study import lattices
from study.archive import RESULTS
from study.asking import DATASET, Asked, answers, answers_measured, dataset, drawn_for
from study.measured import NEW, add, scan_of, trained
from xxlib import PROJECT
from xxlib.answering.inference import batch_of
from xxlib.answering.joint import FILE, Joint, by_lattices, by_network, write_joint
from xxlib.answering.phases import UNEXPLAINED
from xxlib.answering.predictor import Predictor
from xxlib.candidates.explanation import UNKNOWN
from xxlib.candidates.known import DEFAULT, KnownCrystals, find, write_rankings
from xxlib.candidates.lattices import FILE as LATTICES
from xxlib.candidates.lattices import read_lattices
from xxlib.candidates.library import FILE as LIBRARY
from xxlib.candidates.ranking import Ranking
from xxlib.crystals.crystal import crystal_system
from xxlib.datasets.batches import CPU, make_batch
from xxlib.datasets.store import sha256
from xxlib.scans.samples import read_sample
from xxlib.training.machine import commit, hardware

TABLE = "known_crystals"
SUREST = 0.7  # share of the samples whose answers are surest
ORIGIN = ("dataset", "split", "given", "setting", "patterns")
MADE_BY = ("library", "seed", "commit", "hardware")
ASKED = (
    Asked(n=600),
    Asked(effects="laboratory"),
    Asked(setting="in the library"),
    Asked(setting="in the library", effects="laboratory"),
    Asked(given="another formula", setting="in the library", effects="laboratory", n=150),
    Asked(given="nothing", setting="in the library", effects="laboratory", n=150),
    Asked(given="nothing", effects="laboratory", n=150),
    Asked(given="another formula", setting="in the library", n=150),
    Asked(given="nothing", setting="in the library", n=150),
    Asked(given="nothing", n=150),
    Asked(setting="elements held out"),
    Asked(given="elements", setting="in the library", n=150),
    Asked(given="another anode", setting="in the library", effects="laboratory", n=150),
)
WRONG = ("another formula", "another anode")  # what is given then: no candidate is right
# What each ranking and each joint posterior is fitted on: crystals known and not, right and wrong formulas and anodes.
ALIKE = [one for one in ASKED if one.setting != "elements held out"]
FITTED_ON = {
    "ideal": [one for one in ALIKE if one.effects is None and one.given in ("formula", *WRONG)],
    "scan": [one for one in ALIKE if one.effects and one.given in ("formula", *WRONG)],
    "ideal, formula unknown": [one for one in ALIKE if one.effects is None and one.given == "nothing"],
    "scan, formula unknown": [one for one in ALIKE if one.effects and one.given == "nothing"],
}
JOINED_ON = {kind: [one for one in kinds if one.given not in WRONG] for kind, kinds in FITTED_ON.items()}
GIVEN = {"formula": ("composition", "xrd"), "nothing": ("xrd",)}  # to a network, then
FOLDS = 5
LIKELIEST = 10  # space groups of a posterior that are kept
MEASURED = tuple((given, setting) for given in GIVEN for setting in ("nothing hidden", "formula held out"))


# ---------------------------------------------------------------- what comes of it


def fit(folder, workers=1):
    """The rankings, fitted on `val`, by name of known.KINDS."""
    return {kind: Ranking.fit(samples(kinds, folder, workers)[1]) for kind, kinds in FITTED_ON.items()}


def samples(kinds, folder, workers=1):
    """Answers of some kinds of questions on `val`, a DataFrame, and the samples (table, none, right) of those that
    there was something to say of, which a Ranking is fitted on."""
    found, samples = [], []
    for asked in kinds:
        table, evidence = answers(asked, "val", folder, workers)
        found.append(table.assign(evidence=evidence, asked=asked))
    found = pd.concat(found, ignore_index=True)
    told = found.dropna(subset="evidence")
    for (table, none, groups), true, asked in zip(told["evidence"], told["space_group"], told["asked"]):
        samples.append((table, none, (groups == true) & (asked.given not in WRONG)))
    return found, samples


def cross_fitted(kinds, folder, workers=1):
    """Answers of some kinds of questions on `val`, a DataFrame: those of a ranking fitted without the crystal."""
    found, own = samples(kinds, folder, workers)
    fold, told = pd.factorize(found["row"])[0] % FOLDS, np.flatnonzero(found["evidence"].notna())
    said = [{"groups": [], "shares": [], "none": 1.0}] * len(found)
    for k in range(FOLDS):
        ranking = Ranking.fit([one for one, at in zip(own, fold[told]) if at != k])
        for i in told[fold[told] == k]:
            table, none, groups = found["evidence"].iloc[i]
            shares, nothing = ranking.probabilities(table, none)
            of_group = pd.Series(shares).groupby(groups).sum().sort_values(ascending=False)
            said[i] = {"groups": of_group.index.to_numpy(), "shares": of_group.to_numpy(), "none": nothing}
    return found.assign(**pd.DataFrame(said).to_dict("series"))


def validate(folder, workers=1):
    """A row a kind of question that rankings are fitted on: how many answers on `val` are right, cross-validated."""
    rows = []
    for kinds in FITTED_ON.values():
        for asked, of_kind in cross_fitted(kinds, folder, workers).groupby("asked", sort=False):
            origin = {"dataset": Path(DATASET).name, "split": "val", "given": asked.given, "setting": asked.setting}
            origin["patterns"] = asked.effects or "ideal"
            made = {"library": DEFAULT, "seed": 0, "commit": commit(), "hardware": hardware(CPU, 1)}
            rows.append(origin | judged(of_kind) | made)
    return pd.DataFrame(rows)


def join(model, folder, workers=1):
    """The Joints of a Predictor and of the known crystals, fitted on `val`, by name of known.KINDS."""
    joints = {}
    for kind, kinds in JOINED_ON.items():
        found = cross_fitted(kinds, folder, workers)
        parts = found.groupby("asked", sort=False)
        others = np.concatenate([others_of(model, asked, part["row"], folder) for asked, part in parts])
        true = found["space_group"].to_numpy() - 1
        joints[kind] = Joint.fit(known_of(found), found["none"].to_numpy(float), others, true)
    return joints


def others_of(model, asked, rows, folder):
    """What a Predictor's network, and the lines alone, say of crystals of the dataset: (n, 2, 230)."""
    ranking = read_lattices(find(DEFAULT) / LATTICES)["scan" if asked.effects else "ideal"]
    found = lattices.cells(rows, asked.effects, folder)
    of_lines = by_lattices(lattices.probabilities(found, ranking))
    return np.stack([by_model(model, asked, rows), of_lines], axis=1)


def by_model(model, asked, rows):
    """What a Predictor's network says of crystals of the dataset from what is given: (n, 230), as joint.by_network."""
    said, modalities = [], model.ensemble.config.model.modalities
    for row in rows:
        batch = make_batch(dataset(), np.array([row]), modalities, drawn=drawn_for(row, asked.effects))
        said.append(by_batch(model, batch, GIVEN[asked.given]))
    return np.concatenate(said)


def by_batch(model, batch, modalities):
    """The same of a Batch, from some modalities."""
    logits, classes = model.ensemble(batch.only(modalities)).logits, model.trust[modalities].classes
    names = [name for name in ("crystal_system", "space_group") if name in classes]
    return by_network(*(classes[name].probabilities(logits[name]) for name in names))


def known_of(found):
    """Probabilities (n, 230) of space groups by known crystals."""
    known = np.zeros((len(found), 230))
    for own, groups, shares in zip(known, found["groups"], found["shares"]):
        own[np.asarray(groups, int) - 1] = shares
    return known


def together(joints, model, asked, found, folder):
    """Answers as `found`, of the posterior of known crystals, a network and the lines alone."""
    kind = "scan" if asked.effects else "ideal"
    return posterior(joints, kind, asked.given, found, others_of(model, asked, found["row"], folder))


def together_measured(joints, model, given, found):
    """The same of answers for measured patterns; of one that was refused nothing is said."""
    network = [np.ones((1, 230)) if sample is None else by_batch(model, batch_of(sample), GIVEN[given])
               for sample in found["sample"]]  # fmt: skip
    others = np.stack([np.concatenate(network), by_lattices(np.stack(found["lattices"]))], axis=1)
    return posterior(joints, "scan", given, found, others)


def posterior(joints, kind, given, found, others):
    """Answers as `found`, with probabilities (n, 2, 230) of space groups by a network and by the lines alone."""
    joint = joints[kind if given == "formula" else UNKNOWN.format(kind)]
    groups = joint.space_groups(known_of(found), found["none"].to_numpy(float), others)
    order = np.argsort(-groups, axis=1, kind="stable")[:, :LIKELIEST]
    return found.assign(groups=list(order + 1), shares=list(np.take_along_axis(groups, order, axis=1)))


def keep(answers, name, **origin):
    """Write one file of answers into RESULTS, with what they are of and what made them."""
    origin |= {"seed": 0, "commit": commit(), "hardware": hardware(CPU, 1)}
    shares = [np.round(one, 4).astype(np.float32) for one in answers["shares"]]
    (RESULTS / TABLE).mkdir(exist_ok=True)
    answers.assign(shares=shares, **origin).to_parquet(
        RESULTS / TABLE / f"{name}.parquet", index=False, compression="zstd"
    )


def table(configs=None, place=RESULTS):
    """A row a kind of question: how many answers are right, in %.

    surest 70 %: of the samples whose space group is most probable.  volume within 1 %: of the first candidate.  right
    phase first: the first candidate is a known crystal of the formula, and of the true space group.  cell within 0.5 %:
    of the first candidate, by the cube root of its volume; of a measured one, where a volume is published.
    unexplained: "none of these" has more than half.  Measured patterns with nothing hidden are also there by those in
    the library alone.
    """
    rows = []
    for path in sorted((place / TABLE).glob("*.parquet")):
        of_kind = pd.read_parquet(path)
        of, by = (of_kind.iloc[0][list(names)].to_dict() for names in (ORIGIN, MADE_BY))
        parts = {of["setting"]: of_kind}
        if of["setting"] == "nothing hidden" and of_kind["in_library"].any():
            parts["in the library"] = of_kind[of_kind["in_library"]]
        if of["setting"] == "formula held out" and NEW in of_kind:
            parts[f"{of['setting']}, {NEW}"] = of_kind[of_kind[NEW].astype(bool)]
        rows += [of | {"setting": setting} | judged(part) | by for setting, part in parts.items()]
    return pd.DataFrame(rows)


def judged(answers):
    """The metrics of some answers, as table() has them."""
    true, systems = (
        answers["space_group"].to_numpy(),
        [system_said(*one) for one in zip(answers["groups"], answers["shares"])],
    )
    first = np.array([groups[0] if len(groups) else 0 for groups in answers["groups"]])
    sure = np.array([shares[0] if len(shares) else 0.0 for shares in answers["shares"]])
    surest = np.argsort(-sure, kind="stable")[: round(SUREST * len(answers))]
    right = {
        "crystal system": np.array([said == crystal_system(int(number)) for said, number in zip(systems, true)]),
        "space group": first == true, "volume within 1 %": answers["volume_off"].abs().to_numpy() < 1,
    }  # fmt: skip
    metrics = {
        "crystal system (%)": right["crystal system"], "space group (%)": right["space group"],
        "first three space groups (%)": [number in groups[:3] for number, groups in zip(true, answers["groups"])],
    } | {f"surest 70 %: {name} (%)": values[surest] for name, values in right.items()}  # fmt: skip
    metrics["right phase first (%)"] = answers["same_formula"].to_numpy() & right["space group"]
    there = answers["published"].notna() if "published" in answers else np.ones(len(answers), bool)
    metrics["cell within 0.5 % (%)"] = answers["volume_off"].abs()[there].to_numpy() < 1.5
    metrics["unexplained (%)"] = answers["none"].to_numpy() > UNEXPLAINED
    percent = {name: 100 * np.mean(values) if len(values) else np.nan for name, values in metrics.items()}
    return {"n": len(answers)} | percent | {"seconds": answers["seconds"].median()}


def system_said(groups, shares):
    """The most probable crystal system of space groups with probabilities; None where there are none."""
    if not len(groups):
        return None
    return pd.Series(shares, dtype=float).groupby([crystal_system(int(number)) for number in groups]).sum().idxmax()


def findings(place=RESULTS):
    """What known crystals know of `test`, a sentence a setting."""
    rows = table(place=place)
    rows = rows[(rows["split"] == "test") & (rows["given"] == "formula")] if len(rows) else rows
    sentences, columns = [], ("crystal system (%)", "space group (%)")
    for _, row in rows.iterrows():
        all_of, sure = ([row[before + name] for name in columns] for before in ("", "surest 70 %: "))
        sentences.append(
            f"Known crystals, {row['setting']}, {row['patterns']} patterns of {row['n']} crystals of test: "
            f"{all_of[0]:.1f} % of the crystal systems and {all_of[1]:.1f} % of the space groups; "
            f"of the surest 70 %, {sure[0]:.1f} and {sure[1]:.1f} %."
        )
    return sentences


# ---------------------------------------------------------------- the command


def main():
    parser = argparse.ArgumentParser(prog="python -m study.known_crystals", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("fit", "join", "judge", "measured"))
    parser.add_argument("of", nargs="*", help="a checkpoint by its name; then measured patterns, parquet files")
    parser.add_argument("--library", default=DEFAULT, help="for measured patterns: folder, or name in data/libraries")
    parser.add_argument("--minerals", help="a library of minerals with measured cells")
    parser.add_argument("--again", action="store_true", help="known crystals too are asked again for measured patterns")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--kept", type=Path, default=PROJECT / "build" / TABLE, help="folder of what was asked so far")
    arguments = parser.parse_args()
    if arguments.what == "fit":
        write_rankings(find(DEFAULT), fit(arguments.kept, arguments.workers))
        table = validate(arguments.kept, arguments.workers)
        table.to_csv(RESULTS / "known_crystals_val.csv", index=False, float_format="%.5g")
    elif arguments.what == "join":
        model = Predictor.load(arguments.of[0])
        write_joint(model.folder, join(model, arguments.kept, arguments.workers))
    elif arguments.what == "judge":
        judge(Predictor.load(arguments.of[0]), arguments.kept, arguments.workers)
    else:
        minerals = KnownCrystals.load(arguments.minerals).library if arguments.minerals else None
        model, paths = Predictor.load(arguments.of[0]), map(Path, arguments.of[1:])
        judge_measured(model, paths, arguments.library, minerals, arguments.again)


def judge(model, folder, workers):
    """Ask for crystals of `test`, and keep the answers: of known crystals, and of these and a network together."""
    for asked in ASKED:
        found, _ = answers(asked, "test", folder, workers)
        origin = {"dataset": Path(DATASET).name, "split": "test", "setting": asked.setting, "library": DEFAULT}
        origin["patterns"] = asked.effects or "ideal"
        keep(found, f"test-{asked.name}", given=asked.given, **origin)
        if asked.given in GIVEN:
            both = together(model.joint, model, asked, found, folder)
            keep(both, f"test-with_{model.name}-{asked.name}", given=f"{asked.given}, {model.name}", **origin)


def new_to(model, path):
    """Of which samples of a file of measured patterns the formula has trained nothing of a Predictor: a Series by name,
    without those whose formula is not known."""
    table = pd.read_parquet(path)
    if "reduced_formula" not in table:
        return pd.Series(dtype=bool)
    return pd.Series(~trained(table["reduced_formula"], model.ensemble), table["sample"])


def kept_before(name, made_of, path):
    """The answers of known crystals alone that keep() has left of measured patterns, made of the same patterns and
    library, with the Samples as they are read; None where there are none."""
    kept = RESULTS / TABLE / f"{name}.parquet"
    found = pd.read_parquet(kept) if kept.exists() else pd.DataFrame()
    if not set(made_of) <= set(found) or any((found[key] != value).any() for key, value in made_of.items()):
        return None
    rows, samples = pd.read_parquet(path).set_index("sample").to_dict("index"), []
    for name in found["id"]:
        try:
            row = rows[name]
            samples.append(read_sample(row.get("reduced_formula"), scan_of(row | {"sample": name})))
        except ValueError:  # nothing is said of it
            samples.append(None)
    return found.drop(columns=[*ORIGIN, *MADE_BY, *made_of], errors="ignore").assign(sample=samples)


def judge_measured(model, paths, library, minerals=None, again=False):
    """Ask for the measured patterns of some files, once with each posterior of a model, and keep the answers: of known
    crystals, and of these and the rest together."""
    known, log = KnownCrystals.load(library), RESULTS / "measured_log.csv"
    weights = sha256(model.folder / FILE)
    for path in paths:
        name = f"known crystals, {library}, and {model.name}"
        entry = {"model": name, "patterns": path.name, "patterns_sha256": sha256(path)}
        judged_before = (
            pd.read_csv(log).query("sha256 == @weights and model == @entry['model']") if log.exists() else ()
        )
        if len(judged_before) and (judged_before["patterns_sha256"] == entry["patterns_sha256"]).any():
            sys.exit(
                f"known_crystals: {path.name} was asked for with this posterior before; the answers are in {RESULTS}"
            )
        entry |= {"evaluated": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "sha256": weights}
        entry |= {"n": len(pd.read_parquet(path, columns=["sample"])), "commit": commit()}
        add(pd.DataFrame([entry]), log)
        new = new_to(model, path)
        for given, setting in MEASURED:
            if setting == "formula held out" and library != DEFAULT:
                continue  # asked of the library that is shipped
            name = f"{path.stem}-{given}-{setting}-{library}".replace(" ", "_")
            made_of = {"patterns_sha256": entry["patterns_sha256"], "library_sha256": sha256(find(library) / LIBRARY)}
            found = None if again else kept_before(name, made_of, path)
            if found is None:
                found = answers_measured(path, known, given, setting, minerals)
            origin = {"dataset": path.stem, "split": "experimental", "setting": setting} | made_of
            if len(found):
                found[NEW] = found["id"].map(new)
                both = together_measured(model.joint, model, given, found).drop(columns="sample")
                origin |= {"patterns": "measured", "library": library}
                keep(found.drop(columns="sample"), name, given=given, **origin)
                keep(both, f"with_{model.name}-{name}", given=f"{given}, {model.name}", **origin)


if __name__ == "__main__":
    main()
