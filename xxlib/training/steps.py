"""What one step sees, however it is divided over processes and micro-batches.

Every process draws the whole batch of a step (rows, targets, masks: functions of the seed, the step and the position in
the batch) and works on its share of it, in micro-batches.
"""

import numpy as np
import torch

from xxlib.crystals.distortions import DISTORTIONS
from xxlib.datasets.batches import OF_STRUCTURES, has_modalities, make_batch
from xxlib.datasets.structures import has_structure
from xxlib.diffraction.effects import EFFECTS
from xxlib.diffraction.patterns import N_TOKENS
from xxlib.training import parallel
from xxlib.training.draws import drawn_absent, drawn_distortions, drawn_effects, training_rows
from xxlib.training.masking import hidden_elements, hidden_tokens

BLOCK = 128  # samples, of which crystals are put in order of their size


def rows_of_step(examples, config, step):
    """The rows (batch_size,) of the whole batch of a step.

    Structures of a size are next to one another within BLOCK samples.  Micro-batches then have little padding (CAST
    trains at 1.4 times the speed on a core), and yet each process has small crystals and large ones.
    """
    rows = training_rows(examples.rows["train"], step, config.budget.batch_size, config.seed)
    if not OF_STRUCTURES & set(config.model.modalities):
        return rows
    atoms = np.where(has_structure(examples.dataset, rows), examples.dataset.lengths("atom_ids", rows), 0)
    return rows[np.lexsort((atoms, np.arange(len(rows)) // BLOCK))]


def effects_of_step(config, step):
    """The effects drawn for the whole batch of a step, None where patterns are ideal."""
    if config.data.effects is None:
        return None
    return drawn_effects(EFFECTS[config.data.effects], step, config.budget.batch_size, config.seed)


def distortions_of_step(config, step):
    """The distortions drawn for the whole batch of a step, None where structures are as they are."""
    if config.data.distortions is None:
        return None
    return drawn_distortions(DISTORTIONS[config.data.distortions], step, config.budget.batch_size, config.seed)


def parts_of_step(config):
    """This process's share of a batch, in slices of at most micro_batch."""
    own = parallel.share(config.budget.batch_size)
    size = config.machine.micro_batch or config.budget.batch_size
    return [slice(start, min(start + size, own.stop)) for start in range(own.start, own.stop, size)]


def batches_of_step(examples, config, step, parts, device):
    """The batch of one step in parts (slices), one Batch after the other, as the model trains on it: under effects and
    distortions, and without a modality here and there."""
    rows, data, modalities = rows_of_step(examples, config, step), config.data, config.model.modalities
    effects, distortions = effects_of_step(config, step), distortions_of_step(config, step)
    absent = {}
    if data.absent_rate:
        has = has_modalities(examples.dataset, rows, modalities)
        absent = drawn_absent(data.absent_rate, has, step, config.seed)
    for part in parts:
        drawn, distorted = (None if drawn is None else drawn[part] for drawn in (effects, distortions))
        batch = make_batch(examples.dataset, rows[part], modalities, drawn=drawn, distorted=distorted, device=device)
        yield batch.without({name: which[part] for name, which in absent.items()}) if absent else batch


def hidden_of_step(examples, config, step, modality):
    """Which tokens of a modality are hidden in the whole batch of a step: (B, T) bool, none where it is not there."""
    dataset, rows, objectives = examples.dataset, rows_of_step(examples, config, step), config.objectives
    # The targets are drawn from (seed, step, number of targets).
    return hidden_of_rows(dataset, rows, modality, objectives, (config.seed, step, N_TOKENS))


def hidden_of_rows(dataset, rows, modality, objectives, seed=0):
    """The same of some rows: (B, T) bool."""
    if modality == "composition":
        hidden = hidden_elements(dataset.lengths("element_ids", rows), objectives.hidden_rate, seed)
    elif modality == "structure":
        lengths = np.where(has_structure(dataset, rows), dataset.lengths("atom_ids", rows), 0)
        hidden = hidden_elements(lengths, objectives.hidden_rate, seed)
    else:
        hidden = hidden_tokens(len(rows), objectives.hidden_rate, objectives.hidden_span, seed)
        hidden &= (dataset.lengths("two_theta", rows) > 0)[:, None]
    return torch.from_numpy(hidden)


def seed_model(config, step, k):
    """Make what is random in a model a function of the seed, the step, the process and a number k alone.

    A resumed run, and a second pass, repeat it exactly.
    """
    sequence = np.random.SeedSequence((config.seed, step, parallel.rank(), k))
    torch.manual_seed(int(sequence.generate_state(1)[0]))


def precision(config, device):
    """The arithmetic of a model's forward pass, as a context."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.budget.precision == "bf16")


def full(values):
    """Values that mixed precision left in bf16, in float32."""
    return values.float() if values.dtype == torch.bfloat16 else values
