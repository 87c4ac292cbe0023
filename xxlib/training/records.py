"""What is measured of a run, one number a record: metrics.jsonl and results.json hold them, tables are made of them.

step       after how many steps
split      what was looked at: "train", "val", "test"; "test, known formula" and "test, new formula" are parts
given      modalities that the model was given: "composition + xrd", "xrd"; null where there is no such choice
effects    name of the Effects that patterns were measured under, or of the Distortions of structures; null: ideal ones
exchanged  modality that each crystal had from another crystal; null: none
target     name of the target; null: of the run as a whole
metric     "mae", "accuracy", "loss", "seconds", ...
value      float
"""

from xxlib.datasets.targets import TARGETS

KEYS = ("step", "split", "given", "effects", "exchanged", "target", "metric", "value")
JOINED = " + "  # between the modalities of `given`


def record(split, metric, value, *, step=None, target=None, given=None, effects=None, exchanged=None):
    """One record as a dict of KEYS; given: names of modalities."""
    given = JOINED.join(given) if given else None
    return dict(zip(KEYS, (step, split, given, effects, exchanged, target, metric, float(value))))


def check(one):
    """Raise ValueError, with the reason, for what is read of a file and is no record."""
    if not isinstance(one, dict) or set(one) != set(KEYS):
        raise ValueError(f"no record of {', '.join(KEYS)}")
    kinds = dict.fromkeys(KEYS, str | None) | {"step": int | None, "split": str, "metric": str, "value": int | float}
    for name, kind in kinds.items():
        if not isinstance(one[name], kind) or isinstance(one[name], bool):
            raise ValueError(f"{name} is {repr(one[name])[:40]}")
    if one["target"] not in (None, *TARGETS):
        raise ValueError(f"there is no target {one['target'][:40]!r}")


def select(records, **values):
    """The records that have these values: select(records, split="val", target="e_form", effects=None)."""
    return [one for one in records if all(one[key] == value for key, value in values.items())]


def curve(records, metric, target=None, split="val", *, given=..., effects=None, exchanged=None):
    """Steps (n,) and values (n,) of one metric, as lists; empty where no record has it.

    given: as records have it; where left out, all modalities that the model reads: the first there is.
    """
    of_metric = select(records, metric=metric, target=target, split=split, effects=effects, exchanged=exchanged)
    if given is ...:
        given = of_metric[0]["given"] if of_metric else None
    of_metric = [one for one in of_metric if one["given"] == given]
    return [one["step"] for one in of_metric], [one["value"] for one in of_metric]


def value(records, metric, target=None, split="test", **view):
    """The last value of a metric, None where there is none; view: as curve takes it."""
    return next(reversed(curve(records, metric, target, split, **view)[1]), None)
