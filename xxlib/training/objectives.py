"""Objectives: the gradient and the losses of a whole batch, of the targets or of pretraining.

Losses divide by counts of the whole batch, so that sums over its parts are its loss and its gradient.
"""

import torch

from xxlib.datasets.batches import has_modalities, make_targets, send
from xxlib.training import parallel
from xxlib.training.draws import drawn_targets
from xxlib.training.losses import (
    balance_loss,
    contrastive_loss,
    masked_element_loss,
    masked_xrd_loss,
    relational_loss,
    target_counts,
    target_losses,
    taught_loss,
)
from xxlib.training.relations import MEASURED
from xxlib.training.steps import (
    batches_of_step,
    effects_of_step,
    full,
    hidden_of_step,
    parts_of_step,
    precision,
    rows_of_step,
    seed_model,
)

BALANCE = 0.2  # weight of the loss that keeps experts in use


def step_gradients(model, examples, config, step, device):
    """Set the gradients of the batch of one step, and return its losses, each of the whole batch.

    losses: name of a target, or "balance" of experts; of pretraining, "contrastive composition + xrd", "masked xrd",
    "relational xrd to composition", "taught" -> scalar.
    """
    backward = _pretraining if config.objectives.pretrains else _supervised
    losses = backward(model, examples, config, step, device)
    parallel.sum_over_processes(p.grad for p in model.parameters() if p.grad is not None)
    parallel.sum_over_processes(losses.values())
    return losses


def _supervised(model, examples, config, step, device):
    """Gradients and losses of the targets, of this process's share of a batch."""
    rows, parts, drawn = rows_of_step(examples, config, step), parts_of_step(config), None
    if config.objectives.one_target and len(examples.targets) > 1:
        drawn = drawn_targets(len(examples.targets), step, len(rows), config.seed)
    effects = effects_of_step(config, step)
    labels = make_targets(examples.dataset, rows, examples.targets, examples.normalisers, effects)
    counts = target_counts(labels, drawn)
    if examples.cls is None:
        outputs = _outputs(model, examples, config, step, parts, device)
    else:
        cls = (examples.cls[send(torch.from_numpy(rows[part]), device)] for part in parts)
        outputs = ((*model.heads(of_part), None) for of_part in cls)
    losses = {}
    for part, (predictions, log_std, weights) in zip(parts, outputs):
        own = None if drawn is None else send(drawn[part], device)
        true = {name: send(values[part], device) for name, values in labels.items()}
        pieces = target_losses(predictions, true, own, counts, log_std, config.objectives.absolute)
        if weights is not None and config.model.has_experts:
            used = weights.detach().sum(0)
            parallel.sum_over_processes([used])  # parts_of_step gives each process one part
            pieces["balance"] = BALANCE * balance_loss(weights, used)
        sum(pieces.values()).backward()
        losses = {name: losses.get(name, 0) + piece.detach() for name, piece in pieces.items()}
    return losses


def _outputs(model, examples, config, step, parts, device):
    """Predictions, log_std and weights, as Output has them, of one part of a batch after the other."""
    for k, batch in enumerate(batches_of_step(examples, config, step, parts, device)):
        seed_model(config, step, k)
        inputs = batch.inputs
        if config.data.jitter:
            inputs = inputs | {"composition": inputs["composition"].jittered(config.data.jitter)}
        with precision(config, device):
            output = model(inputs, batch.given)
        predictions, log_std = (
            {name: full(x) for name, x in values.items()} for values in (output.predictions, output.log_std)
        )
        yield predictions, log_std, None if output.weights is None else full(output.weights)


def _pretraining(model, examples, config, step, device):
    """Gradients and losses of pretraining, of this process's share of a batch.

    All others see what the masked ones hide.
    """
    parts = parts_of_step(config)
    batches = list(batches_of_step(examples, config, step, parts, device))
    losses, passes = {}, 0  # each pass over the parts is random in a way of its own
    for pair in config.objectives.contrastive:
        losses[contrastive_name(pair)] = _contrastive(model, examples, config, step, batches, pair, passes)
        passes += len(parts)
    for pair in config.objectives.relational:
        losses[relational_name(pair)] = _relational(model, examples, config, step, batches, pair, passes)
        passes += len(parts)
    if config.objectives.taught:
        losses["taught"] = _taught(model, examples, config, step, parts, batches, passes)
        passes += len(parts)
    for modality in config.objectives.masked:
        losses[masked_name(modality)] = _masked(model, examples, config, step, parts, batches, modality, passes)
        passes += len(parts)
    return losses


def contrastive_name(pair):
    """What the contrastive loss of a pair of modalities is called."""
    return f"contrastive {' + '.join(pair)}"


def relational_name(pair):
    """What the loss is called by which one modality is taught the similarities of another, named first."""
    return f"relational {' to '.join(pair)}"


def masked_name(modality):
    """What the loss of a modality's hidden tokens is called."""
    return f"masked {modality}"


def _contrastive(model, examples, config, step, batches, pair, passes):
    scale = model.logit_scales["+".join(pair)]

    def loss(embedded, part, paired):
        return contrastive_loss(*embedded, scale, part, paired)

    return _compared(model, examples, config, step, batches, pair, pair, passes, loss)


def _relational(model, examples, config, step, batches, pair, passes):
    measured = torch.cat([MEASURED[pair[0]](batch.inputs[pair[0]]) for batch in batches])
    measured = parallel.gather(measured, config.budget.batch_size)

    def loss(embedded, part, paired):
        return relational_loss(*embedded, measured, part, paired)

    return _compared(model, examples, config, step, batches, pair, pair[1:], passes, loss)


def _compared(model, examples, config, step, batches, pair, embeds, passes, loss_of):
    """A loss that compares the whole batch: a first pass embeds it, the second computes each micro-batch again, in the
    same random state, and passes on the gradient of its embeddings (GradCache, arXiv 2101.06983).  One micro-batch
    needs no second pass.

    embeds: the modalities whose summaries loss_of(summaries, part, paired) compares, of samples that have the `pair`.
    """
    rows, device = rows_of_step(examples, config, step), next(model.parameters()).device

    def summaries(k):
        seed_model(config, step, passes + k)
        with precision(config, device):
            embedded = model.summaries(batches[k].inputs, embeds)
        return tuple(map(full, embedded))  # (b, D) each

    with torch.set_grad_enabled(len(batches) == 1):
        embedded = [summaries(k) for k in range(len(batches))]
    cached = [torch.cat(side).detach().requires_grad_() for side in zip(*embedded)]
    whole = [parallel.gather(side, len(rows)) for side in cached]
    has = has_modalities(examples.dataset, rows, pair)
    paired = has[pair[0]] & has[pair[1]]
    paired = None if paired.all() else send(paired, device)
    loss = loss_of(whole, parallel.share(len(rows)), paired)
    loss.backward()
    for k, gradient in enumerate(zip(*(side.grad.split(list(map(len, batches))) for side in cached))):
        torch.autograd.backward(embedded[k] if len(batches) == 1 else summaries(k), gradient)
    return loss.detach()


def _taught(model, examples, config, step, parts, batches, passes):
    vectors, total = examples.taught[rows_of_step(examples, config, step)], 0  # (B, D)
    count = vectors.isfinite().all(-1).sum().clamp_min(1)
    for k, (part, batch) in enumerate(zip(parts, batches)):
        seed_model(config, step, passes + k)
        piece = taught_loss(summary(model, config, batch), vectors[part], count)
        piece.backward()
        total = total + piece.detach()
    return total


def summary(model, config, batch):
    """What the heads of a model read of a Batch: (B, D)."""
    with precision(config, next(model.parameters()).device):
        return full(model(batch.inputs, batch.given).fused.x[:, 0])


def _masked(model, examples, config, step, parts, batches, modality, passes):
    hidden = hidden_of_step(examples, config, step, modality)  # (B, T)
    total, device = 0, next(model.parameters()).device
    for k, (part, batch) in enumerate(zip(parts, batches)):
        seed_model(config, step, passes + k)
        piece = masked_loss(model, examples, config, batch, modality, send(hidden[part], device), hidden.sum())
        piece.backward()
        total = total + piece.detach()
    return total


def masked_loss(model, examples, config, batch, modality, hidden, count):
    """The loss of the hidden tokens (B, T) of a Batch, divided by their `count` in the whole it is a part of.

    Of patterns it is relative: 1 is the mean square of a token of train.
    """
    own = batch.inputs[modality]
    hidden = hidden[:, : own[0].shape[1]]  # of compositions, without the padding of longer ones elsewhere
    hidden = torch.nn.functional.pad(hidden, (0, own[0].shape[1] - hidden.shape[1]))
    with precision(config, hidden.device):
        output = model(batch.inputs | {modality: own.hide(hidden)}, batch.given, tokens=True)
        guess = model.guess[modality](output.fused.x[:, 1:])
    if modality == "xrd":
        return masked_xrd_loss(full(guess), own.tokens, hidden, count * examples.token_mean_square)
    return masked_element_loss(full(guess), own[0], hidden, count)
