"""Runs as tables: one row a run, or one row for the runs that differ by their seed alone."""

import re
from html import escape

import numpy as np
import pandas as pd

from study import archive
from study.archive import LABELS, RESULTS
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.datasets.targets import TARGETS
from xxlib.training.metrics import ignores_pattern

WHOLE = ["seeds", "parameters", "samples", "batch_size", "n_steps"]  # numbers, or nothing where a row has none
COUNTS = [*WHOLE, "crystals", "crystals in test", "span (tokens)"]
RECIPE = ["batch_size", "learning_rate", "n_steps"]
# What sets a run apart from one from scratch on all training crystals, with the value there.
APART = {"initial": "", "frozen": False, "left_out": "", "n_train": "all", "likelihood": False, "effects": ""}
APART |= {"absent_rate": 0.0, "absolute": False}
# What runs have in common that differ by their seed alone.
ABOUT = ["modalities", "targets", "parameters", "samples", *RECIPE]
ABOUT += ["dataset", "labels", "split", "preset", "architecture", *APART]
ORIGIN = ["dataset", "labels", "split", "preset", "seeds", "hardware", "commit", "note"]  # of a row of several seeds
E_FORM, BAND_GAP = "test e_form mae (meV/atom)", "test band_gap mae (eV)"
CRYSTAL_SYSTEM, SPACE_GROUP = "test crystal_system accuracy (%)", "test space_group accuracy (%)"
METRICS = (E_FORM, BAND_GAP, CRYSTAL_SYSTEM, SPACE_GROUP)
ARCHITECTURES = {
    "xxact": "XxaCT-NN",
    "fcn": "PXRDPiAYN FCN",
    "fcn_mlp": "PXRDPiAYN FCN+MLP",
    "crabnet": "CrabNet",
    "mat2vec": "XxaCT-NN with mat2vec's element vectors,",
    "boosting": "gradient boosting on element statistics,",
}
# How a terminal calls what stands in a table.
TERSE = {"composition": "composition", "xrd": "pattern", "composition + xrd": "both", "structure": "structure"}
TERSE |= {"e_form": "E_f", "band_gap": "gap", "crystal_system": "system", "space_group": "group"}
TERSE |= {"e_form + crystal_system": "E_f, system", **dict(zip(METRICS, ("E_f", "gap", "system", "group")))}


def by_formula(metric):
    """The names of a metric of `test` for crystals whose formula is in train, and for the others."""
    return [metric.replace("test", f"test, {formula} formula", 1) for formula in ("known", "new")]


def results_table(place=RESULTS):
    """One row a finished run of a place that saw `test`; runs that pretrained predict nothing and are left out."""
    records = [archive.read(name, place) for name in archive.names(place)]
    records = [one for one in records if one.config["objectives"]["targets"] and one.config["evaluate_test"]]
    if not records:
        return pd.DataFrame(columns=["name", *ABOUT, "seed", "seconds", "hardware", "commit"])
    return ordered(pd.DataFrame([row(one.config, one) for one in records]))


def ordered(table):
    """The rows of runs by targets and modalities."""
    return table.sort_values(["targets", "modalities", "seed", "name"], ignore_index=True)


def planned_table(configs, place=RESULTS):
    """One row for each of some RunConfigs, in their order, those that pretrain left out.

    A run that has not finished, or that failed, is a row without metrics; its `note` is its name, and how it failed.
    """
    rows = []
    for config in configs:
        if not config.objectives.targets:
            continue
        record = archive.read(config.name, place)
        failed = record is not None and ignores_pattern(record.metrics)
        if record is None or failed:
            note = config.name + " (ignores its patterns)" * failed
            rows.append(row(config.as_dict()) | {"note": note})
        else:
            rows.append(row(record.config, record) | {"note": ""})
    table = pd.DataFrame(rows)
    # Known as soon as one seed has finished; what is grouped by it would otherwise fall apart.
    alike = ["preset", "architecture", "modalities", "targets", "initial", "likelihood"]
    return table.assign(parameters=table.groupby(alike)["parameters"].transform("first"))


def finished(configs, place=RESULTS):
    """Those of some RunConfigs that have finished; one that ignores its patterns has failed."""
    read = [(config, archive.read(config.name, place)) for config in configs]
    return [config for config, record in read if record and not ignores_pattern(record.metrics)]


def row(config, record=None):
    """The row of a run: its config (a dict), and its Record where it has finished."""
    data, model = config["data"], config["model"]
    flat = config | data | config["objectives"] | config["budget"]
    values = {"name": config["name"], "dataset": data["dataset"], "split": data["split"], "preset": config["preset"]}
    values |= {"seed": config["seed"], "parameters": np.nan, "samples": flat["n_steps"] * flat["batch_size"]}
    values |= {"modalities": " + ".join(model["encoders"]), "targets": " + ".join(flat["targets"])}
    values |= {"best_step": np.nan, "seconds": np.nan, "hardware": "", "commit": ""}
    values |= {name: usual if flat.get(name) is None else flat[name] for name, usual in APART.items()}
    values |= {name: flat[name] for name in RECIPE}
    values["architecture"] = model["architecture"]
    if model.get("element_vectors") == "mat2vec":
        values["architecture"] = "mat2vec"
    values["labels"] = LABELS.get(data["dataset"], "")
    if record is not None:
        values |= {name: getattr(record, name) for name in values if name in ("parameters", "samples", "best_step")}
        values |= {name: getattr(record, name) for name in ("seconds", "hardware", "commit")}
        values |= dict(metric_column(one, values["modalities"]) for one in record.metrics if one["target"])
    return values


def metric_column(record, modalities):
    """Name and value of a final metric, with unit: ("val laboratory xrd e_form mae (meV/atom)", 712.8).

    What a run of `modalities` was given is named where it was not all of them.
    """
    shown, scale = TARGETS[record["target"]].shown(record["metric"])
    view = [record["effects"], record["given"] if record["given"] != modalities else None]
    view += [record["exchanged"] and f"exchanged {record['exchanged']}"]
    return " ".join([record["split"], *filter(None, view), shown]), scale * record["value"]


def summary_table(results, metrics=METRICS):
    """One row for the runs of a results_table that differ by nothing but their seed, with `seeds`, their number.

    Each metric is the mean over seeds; beside it "+-" is the standard deviation of one run (n - 1), empty for one seed.
    Of a planned_table, `note` names the runs that are missing.
    """
    rows = []
    for common, alike in results.groupby(ABOUT, sort=False, dropna=False):
        values = dict(zip(ABOUT, common)) | seeds_of(alike)
        for metric in metrics:
            column = alike[metric].dropna() if metric in alike else pd.Series(dtype=float)
            values |= {metric: column.mean(), f"+- {metric}": column.std()}
        rows.append({"model": model_of(values)} | values)
    columns = [name for metric in metrics for name in (metric, f"+- {metric}")]
    rest = [*columns, "seeds", *ABOUT[2:], "hardware", "commit", *["note"] * ("note" in results)]
    return whole(pd.DataFrame(rows, columns=["model", *ABOUT[:2], *rest]))


def model_of(values):
    """How the model of a row is called."""
    return f"{ARCHITECTURES[values['architecture']]} {values['preset']}"


def seeds_of(alike):
    """Of rows that differ by their seed: number of those that have finished, hardware, commits, and what is missing."""
    missing = [name for name in alike.get("note", ()) if name]
    joined = {name: ", ".join(sorted(set(alike[name]) - {""})) for name in ("hardware", "commit")}
    return joined | {"seeds": len(alike) - len(missing), "note": f"missing: {', '.join(missing)}" if missing else ""}


def origin(configs, place=RESULTS):
    """What a row of some runs that differ by their seed says of them: a dict of ORIGIN."""
    table = planned_table(configs, place)
    return {name: table[name][0] for name in ORIGIN if name in table} | seeds_of(table)


def groups(configs, key):
    """The runs that predict something, by a key, as lists."""
    by_key = {}
    for config in configs:
        if config.objectives.targets:
            by_key.setdefault(key(config), []).append(config)
    return by_key.values()


def start_of(config):
    """The name of the run that a run starts from, or "scratch"."""
    return config.initial.rpartition("/")[2] if config.initial else "scratch"


def whole(table):
    """A table whose counts are whole numbers, also where a row has none."""
    return table.astype({name: "Int64" for name in COUNTS if name in table})


def committed(name):
    """The table data/results/<name>.csv, as it is committed."""
    return whole(pd.read_csv(RESULTS / f"{name}.csv"))


MOST = 8  # columns that are seen at once
FOLDED = {  # where a row comes from, how many crystals it is of, and what a figure beside the table shows
    *RECIPE, *ORIGIN, "parameters", "samples", "architecture", "best_step", "seconds", "seed", "crystals",
    "crystals in test", "val at 5%", "val at 15%", "val at 25%", "steps to scratch's 25%", "where from",
}  # fmt: skip
LEADING = ("n_train", "model", "modalities", "start", "initial", "targets", "set apart by")  # columns, in this order
SET_APART = {"frozen": "frozen", "likelihood": "by likelihood", "absolute": "by absolute errors"}
SET_APART |= {"effects": "{} effects", "left_out": "without {}", "absent_rate": "an input absent in {:.0%}"}
SET_APART |= {"n_steps": "{:,.0f} steps"}
CALLED = {"modalities": "inputs", "n_train": "training crystals", "initial": "start", "note": "missing"}


def captioned(table, caption, keep=()):
    """A table as a notebook shows it: what its rows differ by first, then what was measured, MOST columns in all.

    What is the same in all rows, where they come from, and the emptiest of too many columns are folded away below it.
    A table of all crystal systems has them, what its rows are in one column, and one quantity.
    keep: columns that are not.
    """
    from IPython.display import HTML

    table = table.dropna(axis="columns", how="all").reset_index(drop=True)
    small = len(table) < 2 or (len(table.columns) <= MOST and not FOLDED & set(table))  # nothing needs to be folded
    differ = {name for name in table if small or table[name].astype(str).nunique() > 1} | set(keep)
    differ |= set(CRYSTAL_SYSTEMS) & set(table)
    words = _in_words(table)
    apart = [name for name in SET_APART if name in differ and len(table) > 1]
    if apart:
        said = [[_set_apart(name, row[name]) for name in apart] for _, row in table.iterrows()]
        words["set apart by"] = [", ".join(filter(None, one)) for one in said]
    shown = differ - (FOLDED | set(SET_APART)) | {"set apart by"} | set(keep)
    shown -= {"initial"} if "start" in shown else set()  # the same, as a path
    seen = [name for name in words if name in shown]
    seen.sort(key=lambda name: LEADING.index(name) if name in LEADING else len(LEADING))  # the others stay in order
    single, most, said = [name for name in seen if name not in CRYSTAL_SYSTEMS], MOST, []
    if len(single) < len(seen):  # seven columns are of one quantity: one says of what, one more is a quantity
        said = [name for name in single if name in LEADING]
        of = ", ".join(map(_called, said))
        words[of] = [", ".join(filter(None, row)) for row in words[said].astype(str).to_numpy()]
        seen = [of, *(name for name in seen if name not in said)]
        single, most = [name for name in seen if name not in CRYSTAL_SYSTEMS], 2
    while len(single) > most:
        emptiest = min((name for name in reversed(single) if name not in keep), key=lambda n: (words[n] != "").sum())
        seen.remove(emptiest)
        single.remove(emptiest)
    rest = words.drop(columns=[*seen, "set apart by", *said], errors="ignore")
    return HTML(_html(words[seen], caption) + _folded(rest, differ if len(table) > 1 else ()))


def listed(sentences):
    """Sentences, as those of an experiment's findings, as a notebook shows them: one a point, wrapped."""
    from IPython.display import HTML

    return HTML(f"<ul>{''.join(f'<li>{escape(str(sentence))}</li>' for sentence in sentences)}</ul>")


def _folded(words, differ):
    """HTML of columns that a click unfolds: what is the same in all rows as a sentence, the others as a table."""
    same = [f"{_called(name)}: {words[name].iloc[0]}" for name in words if name not in differ and len(words)]
    others = words[[name for name in words if name in differ]].set_axis(range(1, len(words) + 1))
    if not len(words.columns):
        return ""
    title = f"more of these rows: {', '.join(map(_called, words))}"
    inner = f"<p>{escape('; '.join(same))}</p>"
    if len(others.columns):
        inner += _html(others, "the rows above, from 1", index=True)
    return f'<details style="overflow-x: auto"><summary>{escape(title)}</summary>{inner}</details>'


def _called(name):
    """A column as its head says it: "MAE of E_f, new formula (meV/atom)"."""
    for target in TARGETS.values():
        name = name.replace(f"{target.name} mae", f"MAE of {target.short}")
        name = name.replace(f"{target.name} accuracy", f"{target.title} right")
    name = name.replace("exchanged xrd", "patterns exchanged,")
    metric = re.fullmatch(r"test(, [^()]*? (?:formula|family))? (.*?)( \(.*\))?", name)
    return f"{metric[2]}{metric[1] or ''}{metric[3] or ''}" if metric else CALLED.get(name, name)


def _set_apart(name, value):
    plain = pd.isna(value) or value in (False, "", 0, "False")
    return "" if plain else SET_APART[name].format(value)


def _in_words(table):
    """A table of words with few decimals; a column "+- x" goes into the column x: "69.5 ± 1.4"."""
    out = {}
    for name in (name for name in table if not name.startswith("+- ")):
        error = next((e for e in (f"+- {name}", f"+- {name.partition(', ')[2]}") if e in table), None)
        words = [_word(name, value) for value in table[name]]
        if error is not None:
            spreads = [_word(name, value) for value in table[error]]
            words = [f"{word} ± {spread}" if spread else word for word, spread in zip(words, spreads)]
        out[name] = words
    return pd.DataFrame(out, dtype=object)


def _word(name, value):
    if isinstance(value, list | tuple):
        return "\n".join(map(str, value))
    if name == "initial":
        return "scratch" if pd.isna(value) or not value else value.rpartition("/")[2]
    if pd.isna(value):
        return ""
    if name == "learning_rate" or isinstance(value, str | bool | np.bool_):
        return str(value)
    if float(value).is_integer() and not isinstance(value, float):
        return f"{value:,}"
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 or "%" in name or "meV" in name else 3
    return f"{value:,.{digits}f}"


def _html(words, caption, index=False):
    style = words.rename(columns=_called).style.format(escape="html").format_index(escape="html", axis="columns")
    rules = {"td": "text-align: left; white-space: pre-line", "th": "text-align: left"}
    style = style.set_table_styles([{"selector": part, "props": props} for part, props in rules.items()])
    # A caption of the table's own would be as narrow as the table.
    return f"<div><b>{escape(caption)}</b></div>" + (style if index else style.hide(axis="index")).to_html()


def as_text(table):
    """What is finished of a summary_table, as a terminal of 100 columns shows it, and how many rows are not.

    What a row was trained with that is not usual in the table stands behind its model.
    """
    untrained = table["seeds"].eq(0).fillna(False)  # references have no seeds
    rows = table[~untrained]
    if rows.empty:
        return "nothing is finished yet"
    usual = rows["n_steps"].mode()
    models = pd.Series([_with_what(row, usual) for row in rows.to_dict("records")], rows.index)
    shown = {"model": models.str.ljust(models.str.len().max())}
    shown |= {words: rows[name].map(TERSE) for name, words in (("modalities", "inputs"), ("targets", "targets"))}
    for name, decimals in zip(METRICS, (1, 3, 1, 1)):
        if rows[name].notna().any():
            shown[TERSE[name]] = [f"{value:.{decimals}f}" if pd.notna(value) else "" for value in rows[name]]
    shown["seeds"] = rows["seeds"].astype("Int64").astype(object)
    lines = [pd.DataFrame(shown).fillna("").to_string(index=False)]
    lines += ["E_f: MAE in meV/atom; gap: MAE in eV; system, group: % right", *rows["labels"].dropna().unique()]
    return "\n".join([*lines, *[f"rows not trained yet: {untrained.sum()}"] * bool(untrained.any())])


def _with_what(row, usual):
    """A model without its preset, and what else its runs had: "XxaCT-NN, likelihood"; usual: the steps of most."""
    steps, preset = row["n_steps"], row["preset"]
    others = [name for name in ("likelihood", "absolute") if row.get(name) is True]
    if preset == "small" and steps not in list(usual):
        others.append(f"{steps:,.0f} steps")
    return ", ".join([row["model"].removesuffix(f" {preset}").removesuffix(","), *others])
