"""How good a model is on crystals that it does not train on."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from xxlib.crystals import distortions
from xxlib.datasets.batches import OF_STRUCTURES, chunks, exchanged_rows, labels_of, make_batch
from xxlib.diffraction.effects import EFFECTS, draw
from xxlib.training import parallel
from xxlib.training.losses import contrastive_loss, relational_loss, taught_loss
from xxlib.training.metrics import KNOWN, NEW, classification_metrics, regression_metrics
from xxlib.training.objectives import contrastive_name, masked_loss, masked_name, relational_name, summary
from xxlib.training.records import record
from xxlib.training.relations import MEASURED
from xxlib.training.steps import full, hidden_of_rows, precision

EVALUATION_BATCH = 512  # also the number of candidates among which a sample finds its partner


class View(NamedTuple):
    """How a split is shown to a model."""

    given: tuple[str, ...]  # modalities; of those that the model reads the others are absent
    effects: str | None = None  # name of the Effects that patterns are measured under; None: ideal ones
    exchanged: str | None = None  # the modality that each crystal has from another one
    distortions: str | None = None  # name of the Distortions of structures; None: as they are

    def record(self, split, metric, value, target=None):
        """A record of what was measured in this view."""
        changes = " + ".join(filter(None, (self.effects, self.distortions))) or None
        return record(split, metric, value, target=target, given=self.given, effects=changes, exchanged=self.exchanged)


def views(config):
    """The Views in which a run is judged.

    All modalities first, as they are and then under its effects and distortions; then each modality alone, where the
    model must do with one; then patterns exchanged.
    """
    modalities = config.model.modalities
    seen = [View(modalities), *changed(config, modalities)]
    if config.data.absent_rate:
        seen += [view for one in modalities for view in (View((one,)), *changed(config, (one,)))]
    exchanged = "xrd" in modalities and len(modalities) > 1
    return seen + [View(modalities, exchanged="xrd")] * exchanged


def changed(config, given):
    """The View of some modalities under the effects and distortions of a run, in a list; none where it has none."""
    effects = config.data.effects if "xrd" in given else None
    distorted = config.data.distortions if OF_STRUCTURES & set(given) else None
    return [View(given, effects, distortions=distorted)] if effects or distorted else []


def evaluate_views(model, examples, split, views, config, device):
    """Records of a split in several views, and the predictions of the first.

    The metric "error" of the split, on which the epoch is chosen, is that under the effects and distortions of the
    run's training.
    """
    records, predictions = [], {}
    trained_on = [View(config.model.modalities), *changed(config, config.model.modalities)][-1]
    for view in views:
        predictions[view] = evaluate(model, examples, split, config, device, view)
        metrics = _metrics(examples, examples.rows[split], predictions[view], view.effects)
        records += [view.record(split, metric, value, target) for (target, metric), value in metrics.items()]
        if view == trained_on:
            records.append(record(split, "error", _error(examples, metrics)))
    return records, predictions[views[0]]


@torch.no_grad()
def outputs(model, examples, split, config, device, view):
    """What a model says of this process's share of a split in a View: one Output after the other.

    What is drawn for the crystals of a split, of effects, is the same in each evaluation of every run; what is
    exchanged is as exchanged_rows says.
    """
    model.eval()
    rows, modalities = examples.rows[split], config.model.modalities
    others = exchanged_rows(rows)
    drawn, distorted = drawn_once(view.effects, len(rows)), distorted_once(view.distortions, len(rows))
    for chunk in chunks(np.arange(len(rows))[parallel.share(len(rows))], evaluation_batch(config)):
        rows_of = {view.exchanged: others[chunk]} if view.exchanged else None
        effects, changes = (None if one is None else one[chunk] for one in (drawn, distorted))
        batch = make_batch(
            examples.dataset, rows[chunk], modalities, drawn=effects, distorted=changes, device=device, rows_of=rows_of
        )
        if view.given != modalities:
            batch = batch.only(view.given)
        with precision(config, device):
            output = model(batch.inputs, batch.given)
        yield output


def evaluate(model, examples, split, config, device, view):
    """What a model predicts of a split in a View: name -> (n,) in the target's unit, or probabilities (n, K)."""
    collected = {target.name: [] for target in examples.targets}
    for output in outputs(model, examples, split, config, device, view):
        for name in collected:
            collected[name].append(output.predictions[name].float().cpu())
    predicted = {}
    for target in examples.targets:
        raw = parallel.gather(torch.cat(collected[target.name]), len(examples.rows[split])).double()
        if target.kind == "regression":
            predicted[target.name] = examples.normalisers[target.name].restore(raw.numpy())
        else:
            predicted[target.name] = raw.softmax(-1).numpy()
    return predicted


def drawn_once(effects, n):
    """What is drawn of named effects for the n crystals of a split, in each evaluation the same; None of None."""
    return draw(EFFECTS[effects], n, 0) if effects else None


def distorted_once(name, n):
    """What is drawn of named distortions for the n crystals of a split, in each evaluation the same; None of None."""
    return distortions.draw(distortions.DISTORTIONS[name], n, 0) if name else None


def _metrics(examples, rows, predicted, effects=None):
    """Metrics of what was predicted of some rows under named effects: (target, metric) -> value.

    None of a target that they do not have.
    """
    values, drawn = {}, drawn_once(effects, len(rows))
    labelled = [name for name in predicted if np.isfinite(examples.dataset.labels[name][rows]).any()]
    for target in (target for target in examples.targets if target.name in labelled):
        metrics = regression_metrics if target.kind == "regression" else classification_metrics
        labels = labels_of(examples.dataset, target.name, rows, drawn)
        of_target = metrics(labels, predicted[target.name])
        values |= {(target.name, name): value for name, value in of_target.items()}
    return values


def _error(examples, metrics):
    """Mean over targets that have labels there of MAE / standard deviation or 1 - accuracy."""
    labelled = {target for target, _ in metrics}
    errors = [
        metrics[target.name, "mae"] / examples.normalisers[target.name].std
        if target.kind == "regression"
        else 1 - metrics[target.name, "accuracy"]
        for target in examples.targets
        if target.name in labelled
    ]
    return float(np.mean(errors))


def evaluate_formulas(examples, split, predicted, given):
    """Records of the crystals of a split whose formula occurs in train, and of the others: how much is memory?

    predicted: as evaluate gives it from the modalities `given`.  Empty where there are not both kinds.
    """
    rows, formulas = examples.rows[split], examples.dataset.column("formula")
    in_train = np.isin(formulas[rows], np.unique(formulas[examples.rows["train"]]))
    if in_train.all() or not in_train.any():
        return []
    records = []
    for part, chosen in ((KNOWN, in_train), (NEW, ~in_train)):
        values = _metrics(examples, rows[chosen], {name: of_all[chosen] for name, of_all in predicted.items()})
        records += [
            View(given).record(f"{split}, {part}", metric, value, target) for (target, metric), value in values.items()
        ]
    return records


@torch.no_grad()
def evaluate_pretraining(model, examples, config, device):
    """Records of the objectives on `val`: each loss, their sum as "error", and of each contrastive pair the share of
    samples that find their partner among EVALUATION_BATCH, which are also those that a relational loss compares.

    Masked losses are of all hidden tokens, which are the same at each evaluation.
    """
    model.eval()
    rows, objectives, modalities = examples.rows["val"], config.objectives, config.model.modalities
    hidden = {name: hidden_of_rows(examples.dataset, rows, name, objectives) for name in objectives.masked}
    names = [*map(contrastive_name, objectives.contrastive), *map(relational_name, objectives.relational)]
    names += [*["taught"] * bool(objectives.taught), *map(masked_name, objectives.masked)]
    sums, counts = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    partners = dict.fromkeys(map(contrastive_name, objectives.contrastive), 0)
    of_all = list(chunks(np.arange(len(rows)), evaluation_batch(config)))
    for chunk in of_all[parallel.rank() :: parallel.n_processes()]:
        batch = make_batch(examples.dataset, rows[chunk], modalities, device=device)
        for pair, name in zip(objectives.contrastive, partners):
            both = batch.given[pair[0]] & batch.given[pair[1]]
            with precision(config, device):
                first, second = (full(x)[both] for x in model.summaries(batch.inputs, pair))
            loss = contrastive_loss(first, second, model.logit_scales["+".join(pair)]) if len(first) else 0
            sums[name] += float(loss) * len(first)
            counts[name] += len(first)
            partners[name] += n_found(first, second) + n_found(second, first)
        for teacher, student in objectives.relational:
            name, both = relational_name((teacher, student)), batch.given[teacher] & batch.given[student]
            with precision(config, device):
                (learned,) = (full(x)[both] for x in model.summaries(batch.inputs, (student,)))
            loss = relational_loss(learned, MEASURED[teacher](batch.inputs[teacher])[both])
            sums[name] += float(loss) * len(learned)
            counts[name] += len(learned)
        if objectives.taught:
            vectors = examples.taught[rows[chunk]]  # (b, D)
            sums["taught"] += float(taught_loss(summary(model, config, batch), vectors, 1))
            counts["taught"] += int(vectors.isfinite().all(-1).sum())
        for modality in objectives.masked:
            name, own = masked_name(modality), hidden[modality][chunk].to(device)
            sums[name] += float(masked_loss(model, examples, config, batch, modality, own, 1))
            counts[name] += int(own.sum())
    values = [*sums.values(), *counts.values(), *partners.values()]
    totals = torch.tensor(values, dtype=torch.float64)
    parallel.sum_over_processes([totals])
    losses, counts, found = (part.tolist() for part in totals.split([len(sums), len(sums), len(partners)]))
    means = {name: loss / max(1, count) for name, loss, count in zip(names, losses, counts)}
    records = [record("val", "error", sum(means.values()))]
    records += [record("val", name, value) for name, value in means.items()]
    for pair, n, of in zip(objectives.contrastive, found, counts):  # the first names are theirs
        records.append(record("val", f"retrieval {' + '.join(pair)}", n / (2 * max(1, of))))
    return records


def evaluation_batch(config):
    """How many samples are judged at once: as many as a machine holds, EVALUATION_BATCH where they are compared.

    Of structures and texts a small batch has little padding.
    """
    if config.objectives.contrastive or config.objectives.relational:
        return EVALUATION_BATCH
    return min(config.machine.micro_batch or EVALUATION_BATCH, EVALUATION_BATCH)


def n_found(queries, candidates):
    """How many rows of queries (B, D) have their own row of candidates (B, D) as the most similar."""
    if not len(queries):
        return 0
    similarities = torch.nn.functional.normalize(queries, dim=-1) @ torch.nn.functional.normalize(candidates, dim=-1).T
    return int((similarities.argmax(1) == torch.arange(len(queries), device=queries.device)).sum())


def predictions_table(examples, split, predicted):
    """Predictions of a split, one crystal a row, as predictions.parquet has them; labels are the dataset's."""
    rows = examples.rows[split]
    columns = {"id": examples.dataset.column("id")[rows], "split": [split] * len(rows)}
    columns |= {f"{name}_predicted": list(values.astype(np.float32)) for name, values in predicted.items()}
    return pa.table(columns)
