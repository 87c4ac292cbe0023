"""One step: the gradient of a whole batch, however it is divided over processes and micro-batches.

Every process draws the whole batch of a step (rows, targets, masks: functions of the seed, the step and the position in
the batch) and works on its share of it, in micro-batches.  Losses divide by counts of the whole batch, so that sums
over its parts are its loss and its gradient.
"""

import numpy as np
import torch

from xxlib.datasets.batches import (
    drawn_absent,
    drawn_effects,
    drawn_targets,
    make_batch,
    make_targets,
    send,
    training_rows,
)
from xxlib.diffraction.effects import EFFECTS
from xxlib.diffraction.patterns import N_TOKENS
from xxlib.training import parallel
from xxlib.training.losses import contrastive_loss, masked_xrd_loss, target_counts, target_losses
from xxlib.training.masking import hidden_tokens


def step_gradients(model, examples, config, step, device):
    """Set the gradients of the batch of one step, and return its losses: name -> scalar, each of the whole batch."""
    rows = rows_of_step(examples, config, step)
    backward = _pretraining if config.objectives else _supervised
    losses = backward(model, examples, config, step, rows, device)
    parallel.sum_over_processes(p.grad for p in model.parameters() if p.grad is not None)
    parallel.sum_over_processes(losses.values())
    return losses


def rows_of_step(examples, config, step):
    """The rows (batch_size,) of the whole batch of a step."""
    return training_rows(examples.rows["train"], step, config.batch_size, config.seed)


def batches_of_step(examples, config, step, parts, device):
    """The batch of one step in parts (slices), one Batch after the other, as the model trains on it: under effects, and
    without a modality here and there."""
    rows, seed = rows_of_step(examples, config, step), config.seed
    effects = drawn_effects(EFFECTS[config.augmentation], step, len(rows), seed) if config.augmentation else None
    absent = drawn_absent(config.modality_dropout, step, len(rows), seed) if config.modality_dropout else None
    for part in parts:
        measured = None if effects is None else effects[part]
        batch = make_batch(examples.dataset, rows[part], drawn=measured, device=device)
        yield batch if absent is None else batch.without(absent[part])


def _supervised(model, examples, config, step, rows, device):
    """Gradients and losses of this process's share of a batch."""
    drawn = None
    if config.one_target and len(examples.targets) > 1:
        drawn = drawn_targets(len(examples.targets), step, len(rows), config.seed)
    labels = make_targets(examples.dataset, rows, examples.targets, examples.normalisers)
    counts = target_counts(labels, drawn)
    parts = _parts(len(rows), config.micro_batch)
    if examples.cls is None:
        outputs = _outputs(model, examples, config, step, parts, device)
    else:
        outputs = (model.heads(examples.cls[send(torch.from_numpy(rows[part]), device)]) for part in parts)
    losses = {}
    for part, (predictions, log_std) in zip(parts, outputs):
        own = None if drawn is None else send(drawn[part], device)
        true = {name: send(values[part], device) for name, values in labels.items()}
        pieces = target_losses(predictions, true, own, counts, log_std)
        sum(pieces.values()).backward()
        losses = {name: losses.get(name, 0) + piece.detach() for name, piece in pieces.items()}
    return losses


def _outputs(model, examples, config, step, parts, device):
    """Predictions and log_std, as Output has them, of one part of a batch after the other."""
    for k, batch in enumerate(batches_of_step(examples, config, step, parts, device)):
        _seed(config, step, k)
        with precision(config, device):
            output = model(*batch.inputs)
        log_std = output.log_std or {}
        yield tuple({name: full(x) for name, x in values.items()} for values in (output.predictions, log_std))


def _pretraining(model, examples, config, step, rows, device):
    """Gradients and losses of this process's share of a batch.

    The contrastive loss compares the whole batch: a first pass embeds it, the second computes each micro-batch again,
    in the same random state, and passes on the gradient of its embeddings (GradCache, arXiv 2101.06983).  One
    micro-batch needs no second pass.
    """
    parts = _parts(len(rows), config.micro_batch)
    batches = list(batches_of_step(examples, config, step, parts, device))
    losses = {}

    def summaries(k):
        _seed(config, step, k)
        with precision(config, device):
            composition, xrd = model.summaries(batches[k].element_ids, batches[k].fractions, batches[k].tokens)
        return full(composition), full(xrd)  # (b, D) each

    if "contrastive" in config.objectives:
        with torch.set_grad_enabled(len(parts) == 1):
            embedded = [summaries(k) for k in range(len(parts))]
        cached = [torch.cat(side).detach().requires_grad_() for side in zip(*embedded)]
        whole = [parallel.gather(side, len(rows)) for side in cached]
        loss = contrastive_loss(*whole, model.logit_scale, parallel.share(len(rows)))
        loss.backward()
        gradients = zip(*(side.grad.split([len(batch.tokens) for batch in batches]) for side in cached))
        losses["contrastive"] = loss.detach()
        for k, gradient in enumerate(gradients):
            torch.autograd.backward(embedded[k] if len(parts) == 1 else summaries(k), gradient)
    if "mxm" in config.objectives:
        masked = masks_of_step(config, step)
        scale = masked.sum() * examples.token_mean_square
        losses["mxm"] = 0
        for k, (part, batch) in enumerate(zip(parts, batches)):
            _seed(config, step, len(parts) + k)
            own = send(masked[part], device)
            with precision(config, device):
                output = model(batch.element_ids, batch.fractions, batch.tokens, own)
            piece = masked_xrd_loss(full(output.reconstructed), batch.tokens, own, scale)
            piece.backward()
            losses["mxm"] = losses["mxm"] + piece.detach()
    return losses


def masks_of_step(config, step):
    """Which tokens of the whole batch of a step are hidden: (B, 17) bool."""
    seed = (config.seed, step, N_TOKENS)  # the targets are drawn from (seed, step, number of targets)
    return torch.from_numpy(hidden_tokens(config.batch_size, config.hidden_rate, config.hidden_span, seed))


def _parts(n, micro_batch):
    """This process's share of a batch of n, in slices of at most micro_batch."""
    own = parallel.share(n)
    size = micro_batch or n
    return [slice(start, min(start + size, own.stop)) for start in range(own.start, own.stop, size)]


def _seed(config, step, k):
    # What is random in the model depends on the seed, the step, the process and the micro-batch alone: a resumed run,
    # and a second pass, repeat it exactly.
    sequence = np.random.SeedSequence((config.seed, step, parallel.rank(), k))
    torch.manual_seed(int(sequence.generate_state(1)[0]))


def precision(config, device):
    """The arithmetic of a model's forward pass, as a context."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


def full(values):
    """Values that mixed precision left in bf16, in float32."""
    return values.float() if values.dtype == torch.bfloat16 else values
