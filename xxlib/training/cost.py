"""What a training step costs, counted and not measured: floating-point operations and bytes."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from xxlib.datasets.batches import MODALITIES
from xxlib.diffraction.patterns import N_TOKENS, POINTS_PER_TOKEN
from xxlib.models.build import build
from xxlib.models.inputs import Composition, Pattern
from xxlib.training.config import ConfigError
from xxlib.training.steps import full, precision

OPTIMIZER_BYTES = 7 * 4  # a parameter of AdamW: reads weight, gradient and two moments, writes all but the gradient
MOVES_NOTHING = {"aten::_unsafe_view", "aten::empty", "aten::detach"}  # beside views


def step_cost(config, n_elements=4):
    """(FLOP, bytes) of one sample in a training step on the targets of a RunConfig, forward, backward and AdamW.

    FLOP are those of matrix products, a multiplication and an addition each, as torch's FlopCounterMode counts them.
    Bytes are what all operations read and write, one after the other, the weights' share for a batch of
    its size included: a bound from above, below which fused kernels and caches stay.  Nothing is computed.
    n_elements: of each composition.  Raises ConfigError for a model of structures, whose graphs have no usual size.
    """
    if others := set(config.model.modalities) - set(MODALITIES):
        raise ConfigError(f"{config.name} reads {', '.join(others)}: what a step of it costs depends on the crystals")
    B = config.budget.batch_size
    with FakeTensorMode():
        model = build(config.model, config.widths).train()
        elements = Composition(torch.ones(B, n_elements, dtype=torch.long), torch.ones(B, n_elements))
        inputs = {"composition": elements, "xrd": Pattern(torch.ones(B, N_TOKENS, POINTS_PER_TOKEN))}
        with Traffic() as traffic, FlopCounterMode(display=False) as counter:
            with precision(config, torch.device("cpu")):
                predictions = model(inputs).predictions
            sum(full(values).square().sum() for values in predictions.values()).backward()
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return counter.get_total_flops() / B, (traffic.bytes + OPTIMIZER_BYTES * trained) / B


class Traffic(TorchDispatchMode):
    """Adds up the bytes of the tensors that go into operations and come out; views move nothing."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        name = operation.name().partition(".")[0]
        if operation.namespace == "aten" and not operation.is_view and name not in MOVES_NOTHING:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return out
