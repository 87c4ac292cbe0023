"""How good a model is on crystals that it does not train on."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from xxlib.datasets.batches import exchanged_rows, make_batch
from xxlib.diffraction.effects import EFFECTS, draw
from xxlib.models.config import MODALITIES
from xxlib.training import parallel
from xxlib.training.losses import contrastive_loss, masked_xrd_loss
from xxlib.training.masking import hidden_tokens
from xxlib.training.metrics import EXCHANGED, KNOWN, NEW, classification_metrics, regression_metrics
from xxlib.training.steps import full, precision

EVALUATION_BATCH = 512  # also the number of candidates among which a composition finds its pattern

# What a model may be given: words -> the modality that is absent.
GIVEN = {"composition and pattern": None, "composition alone": "xrd", "pattern alone": "composition"}


class View(NamedTuple):
    """How a split is shown to a model."""

    augmentation: str | None = None  # name of the Effects that its patterns are measured under; None: ideal ones
    absent: str | None = None  # the modality that is not given
    exchanged: bool = False  # each crystal is given the pattern of another

    @property
    def words(self):
        """What is added to the name of the split: "val" is the ideal whole, "val laboratory, pattern alone" another."""
        alone = [words for words, modality in GIVEN.items() if modality and modality == self.absent]
        return ", ".join(([self.augmentation] if self.augmentation else []) + alone + [EXCHANGED] * self.exchanged)


def views(config):
    """The Views in which a run is judged.

    Ideal patterns first, then under its effects, then one modality alone, then patterns exchanged.
    """
    found = [View(augmentation) for augmentation in dict.fromkeys((None, config.augmentation))]
    if config.modality_dropout:
        found += [View(absent="xrd"), *(view._replace(absent="composition") for view in found)]
    return found + [View(exchanged=True)] * (len(config.model.modalities) > 1)


def given(config):
    """What a model of a RunConfig can be given, of GIVEN."""
    if config.modality_dropout:
        return list(GIVEN)
    reads = config.model.modalities
    return [words for words, absent in GIVEN.items() if set(reads) == set(MODALITIES) - {absent}]


def modalities_given(words):
    """What words of GIVEN say that a model is given."""
    return tuple(modality for modality in MODALITIES if modality != GIVEN[words])


def evaluate_views(model, examples, split, views, config, device):
    """Metrics of a split in several views, as a flat dict "<split> <words of the view>/<name>", and the predictions of
    the first.

    "<split>/error" is that under the effects of the run's augmentation, where it has one.
    """
    values, predictions = {}, {}
    for view in views:
        effects = EFFECTS[view.augmentation] if view.augmentation else None
        about = effects, view.absent, view.exchanged
        metrics, predictions[view] = evaluate(model, examples, split, config, device, *about)
        error = metrics.pop("error")
        if view == View(config.augmentation):
            values[f"{split}/error"] = error
        values |= {f"{split} {view.words}".strip() + f"/{name}": value for name, value in metrics.items()}
    return values, predictions[views[0]]


@torch.no_grad()
def evaluate(model, examples, split, config, device, effects=None, absent=None, exchanged=False):
    """Metrics of a split as a flat dict, and the predictions: name -> (n,) in the target's unit, or (n, K).

    `error`, on which the epoch is chosen, is the mean over targets of MAE / standard deviation or 1 - accuracy.
    effects: Effects that patterns are measured under; what is drawn for the crystals of a split is the same in each
    evaluation of every run.  absent: the modality that is not given.  exchanged: each crystal is given the pattern of
    another, as exchanged_rows says.
    """
    model.eval()
    rows = examples.rows[split]
    patterns = exchanged_rows(rows) if exchanged else rows
    drawn = draw(effects, len(rows), 0) if effects else None
    collected = {target.name: [] for target in examples.targets}
    for chunk in _chunks(np.arange(len(rows))[parallel.share(len(rows))]):
        measured = None if drawn is None else drawn[chunk]
        batch = make_batch(examples.dataset, rows[chunk], drawn=measured, device=device, pattern_rows=patterns[chunk])
        if absent:
            batch = batch.without(torch.tensor([[absent == modality for modality in MODALITIES]] * len(chunk)))
        with precision(config, device):
            output = model(*batch.inputs)
        for name in collected:
            collected[name].append(output.predictions[name].float().cpu())
    predicted = {}
    for target in examples.targets:
        raw = parallel.gather(torch.cat(collected[target.name]), len(rows)).double()
        if target.kind == "regression":
            predicted[target.name] = examples.normalisers[target.name].restore(raw.numpy())
        else:
            predicted[target.name] = raw.softmax(-1).numpy()
    values = _metrics(examples, rows, predicted)
    errors = [
        values[f"{name}_mae"] / examples.normalisers[name].std
        if name in examples.normalisers
        else 1 - values[f"{name}_accuracy"]
        for name in predicted
    ]
    return {"error": float(np.mean(errors)), **values}, predicted


def _metrics(examples, rows, predicted):
    """Metrics of what was predicted of some rows, as a flat dict "<target>_<name>"."""
    values = {}
    for target in examples.targets:
        metrics = regression_metrics if target.kind == "regression" else classification_metrics
        found = metrics(examples.dataset.labels[target.name][rows], predicted[target.name])
        values |= {f"{target.name}_{name}": value for name, value in found.items()}
    return values


def evaluate_formulas(examples, split, predicted):
    """Metrics of the crystals of a split whose formula occurs in train, and of the others: how much is memory?

    predicted: as evaluate gives it.  A flat dict "<split> known formula/<name>" and "<split> new formula/<name>"; empty
    where there are not both.
    """
    rows, formulas = examples.rows[split], examples.dataset.column("formula")
    known = np.isin(formulas[rows], formulas[examples.rows["train"]])
    if known.all() or not known.any():
        return {}
    values = {}
    for words, chosen in ((KNOWN, known), (NEW, ~known)):
        metrics = _metrics(examples, rows[chosen], {name: said[chosen] for name, said in predicted.items()})
        values |= {f"{split} {words}/{name}": value for name, value in metrics.items()}
    return values


@torch.no_grad()
def evaluate_pretraining(model, examples, config, device):
    """Losses of the objectives on `val`, whose sum is `error`, and the share of compositions and patterns that find
    their partner among EVALUATION_BATCH crystals.

    `mxm` is relative: 1 is the mean square of a token of train.  The hidden tokens are the same at each evaluation.
    """
    model.eval()
    rows = examples.rows["val"]
    masked = torch.from_numpy(hidden_tokens(len(rows), config.hidden_rate, config.hidden_span))
    sums = dict.fromkeys(config.objectives, 0.0)
    found = 0
    own_chunks = list(_chunks(np.arange(len(rows))))[parallel.rank() :: parallel.n_processes()]
    for chunk in own_chunks:
        batch = make_batch(examples.dataset, rows[chunk], device=device)
        inputs = (batch.element_ids, batch.fractions, batch.tokens)
        if "contrastive" in config.objectives:
            with precision(config, device):
                composition, xrd = model.summaries(*inputs)
            composition, xrd = full(composition), full(xrd)
            sums["contrastive"] += float(contrastive_loss(composition, xrd, model.logit_scale)) * len(chunk)
            found += n_found(composition, xrd) + n_found(xrd, composition)
        if "mxm" in config.objectives:
            hidden = masked[chunk].to(device)
            with precision(config, device):
                reconstructed = full(model(*inputs, hidden).reconstructed)
            sums["mxm"] += float(masked_xrd_loss(reconstructed, batch.tokens, hidden, examples.token_mean_square))
    counts = {"contrastive": len(rows), "mxm": int(masked.sum())}
    totals = torch.tensor([*sums.values(), found], dtype=torch.float64)
    parallel.sum_over_processes([totals])
    *losses, found = totals.tolist()
    values = {name: loss / counts[name] for name, loss in zip(sums, losses)}
    error = sum(values.values())
    if "contrastive" in config.objectives:
        values["retrieval_accuracy"] = found / (2 * len(rows))
    return {"error": error, **values}


def n_found(queries, candidates):
    """How many rows of queries (B, D) have their own row of candidates (B, D) as the most similar."""
    similarities = torch.nn.functional.normalize(queries, dim=-1) @ torch.nn.functional.normalize(candidates, dim=-1).T
    return int((similarities.argmax(1) == torch.arange(len(queries), device=queries.device)).sum())


def predictions_table(examples, split, predicted):
    """Labels and predictions of a split, one crystal a row, as predictions.parquet has them."""
    dataset, rows = examples.dataset, examples.rows[split]
    columns = {
        "id": dataset.column("id")[rows],
        "formula": dataset.column("formula")[rows],
        "split": [split] * len(rows),
    }
    for target in examples.targets:
        columns[target.name] = dataset.labels[target.name][rows]  # a class as its index
        columns[f"{target.name}_predicted"] = list(predicted[target.name].astype(np.float32))
    return pa.table(columns)


def _chunks(rows):
    for start in range(0, len(rows), EVALUATION_BATCH):
        yield rows[start : start + EVALUATION_BATCH]
