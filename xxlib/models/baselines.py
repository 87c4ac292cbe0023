"""What XxaCT-NN is compared with: the convolutional networks of PXRDPiAYN, and CrabNet with its own head.

PXRDPiAYN ("Powder X-ray diffraction pattern is all you need for machine-learning-based symmetry identification and
property prediction", Lee et al., Adv. Intell. Syst. 4, 2200042, 2022) follows the notebooks of
github.com/socoolblue/XRD_is_All_You_Need, CrabNet (Wang et al., npj Comput. Mater. 7, 77, 2021) those of
github.com/anthony-wang/CrabNet.  Optimiser and schedule are this kit's, the same for every model.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from xxlib.models.encoders.composition import MAX_Z, CompositionEncoder
from xxlib.models.encoders.xrd import N_TOKENS, POINTS_PER_TOKEN
from xxlib.models.heads import Output, TargetHeads
from xxlib.models.inputs import Tokens
from xxlib.models.layers import Dropout

CHANNELS = (16, 16, 32, 32, 64, 64, 128, 128, 256, 256, 512, 512)
SLOPE = 0.3  # of Keras' LeakyReLU
N_ELEMENTS = 100  # width of PXRDPiAYN's composition vector: hydrogen to fermium

RESIDUAL_WIDTHS = (1024, 512, 256, 128)
JITTER = 0.02  # relative standard deviation of a fraction


class Convolutions(nn.Sequential):
    """Twelve convolutions of width 3, each followed by LeakyReLU, max-pooling by 2 and dropout.

    A pattern of n points comes out as n // 4096: one of 4,250 points, two of the published 8,192.
    It is an image of one row with channels last, and pooled before LeakyReLU, which takes two thirds of the time on a
    CPU and makes no difference: LeakyReLU grows.
    """

    def __init__(self, dropout, last_dropout):
        layers = []
        for k, channels in enumerate(CHANNELS):
            layers += [_convolution(CHANNELS[k - 1] if k else 1, channels), nn.MaxPool2d((1, 2)), nn.LeakyReLU(SLOPE)]
            layers += [Dropout(dropout if k + 1 < len(CHANNELS) else last_dropout)]
        super().__init__(*layers)
        self.to(memory_format=torch.channels_last)

    def forward(self, tokens):
        """tokens: (B, L, P), intensity 0-100 -> (B, 512, 1, L P // 4096)."""
        image = (tokens.flatten(1) / 100)[:, None, None]  # (B, 1, 1, L P)
        return super().forward(image.to(memory_format=torch.channels_last))


def _convolution(d_in, d_out):
    return nn.Conv2d(d_in, d_out, (1, 3), padding=(0, 1))


class FCN(nn.Module):
    """PXRDPiAYN's network for a pattern alone: a last convolution to 64 channels, from which the heads read.

    Published with a dropout of 0.2, and twice that around the last convolution.
    """

    reads = ("xrd",)

    def __init__(self, config, widths):
        super().__init__()
        self.convolutions = Convolutions(config.dropout, 2 * config.dropout)
        self.last = nn.Sequential(
            _convolution(CHANNELS[-1], 64),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            Dropout(2 * config.dropout),
        )
        self.heads = TargetHeads(64, widths)
        self.apply(_initialised_by(nn.init.xavier_uniform_))

    def forward(self, inputs, given=None, *, tokens=False):
        """inputs: a Pattern as "xrd"."""
        cls = self.last(self.convolutions(inputs["xrd"].tokens))  # (B, 64)
        return Output(self.heads(cls)[0], {}, Tokens(cls[:, None]), {"xrd": Tokens(cls[:, None])})


class FCNMLP(nn.Module):
    """PXRDPiAYN's network for pattern and composition (its formation energy model; dropout 0.1).

    For 8,192 points it has the published 1,879,937 parameters; for 4,250 points 65,536 fewer, because one point in
    place of two is left after the pools: the 1,814,401 of arXiv 2507.01054.
    """

    reads = ("composition", "xrd")

    def __init__(self, config, widths, n_points=N_TOKENS * POINTS_PER_TOKEN):
        super().__init__()
        self.convolutions = Convolutions(config.dropout, 0.0)
        flat = CHANNELS[-1] * (n_points // 2 ** len(CHANNELS))
        self.mlp = nn.Sequential(*_dense((N_ELEMENTS, 128, 256, 256, 128, 128, 64), config.dropout), nn.Linear(64, 16))
        self.joined = nn.Sequential(*_dense((flat + 16, 128, 16), config.dropout))
        self.heads = TargetHeads(16, widths)
        self.apply(_initialised_by(nn.init.kaiming_uniform_))

    def forward(self, inputs, given=None, *, tokens=False):
        """inputs: a Composition, whose elements above fermium are not seen, and a Pattern as "xrd"."""
        element_ids, fractions, _ = inputs["composition"]
        shares = fractions.new_zeros(len(fractions), MAX_Z + 1).scatter_add(1, element_ids, fractions)  # (B, 119)
        composition = self.mlp(shares[:, 1 : N_ELEMENTS + 1])  # (B, 16)
        xrd = self.convolutions(inputs["xrd"].tokens).flatten(1)  # (B, 512)
        cls = self.joined(torch.cat([xrd, composition], dim=1))  # (B, 16)
        encoded = {"composition": Tokens(composition[:, None]), "xrd": Tokens(xrd[:, None])}
        return Output(self.heads(cls)[0], {}, Tokens(cls[:, None]), encoded)


class CrabNet(nn.Module):
    """CrabNet as published: a residual network for each element, and the mean over elements of what it says.

    A regression is a value, multiplied by the sigmoid of a second output, and the logarithm of its standard deviation,
    for training.losses.robust_l1; a classification is K logits.  In training the fractions are jittered.  Other than
    published, there is no dropout on attention weights.
    """

    reads = ("composition",)

    def __init__(self, config, widths):
        super().__init__()
        self.encoders = nn.ModuleDict({"composition": CompositionEncoder(config, with_cls=False)})
        self.widths = {name: 3 if width == 1 else width for name, width in widths.items()}
        self.residual_network = ResidualNetwork(config.encoders["composition"].d_model, sum(self.widths.values()))

    def forward(self, inputs, given=None, *, tokens=False):
        """inputs: a Composition."""
        composition = inputs["composition"]
        if self.training:
            composition = composition.jittered(JITTER)
        elements, pad = self.encoders["composition"](composition)  # (B, E, D), (B, E)
        outputs = _mean_over_elements(self.residual_network(elements), pad)
        predictions, log_std = {}, {}
        for (name, width), out in zip(self.widths.items(), outputs.split(list(self.widths.values()), dim=1)):
            predictions[name] = out  # (B, K)
            if width == 3:
                value, log_std[name], gate = out.unbind(1)  # (B,) each
                predictions[name] = value * torch.sigmoid(gate)
        cls = _mean_over_elements(elements, pad)  # (B, D)
        return Output(predictions, log_std, Tokens(cls[:, None]), {"composition": Tokens(cls[:, None])})


class ResidualNetwork(nn.Module):
    """Layers x -> LeakyReLU(W x + b) + V x of widths 1024, 512, 256, 128 and a linear one, as in Roost."""

    def __init__(self, d_in, d_out):
        super().__init__()
        sizes = list(pairwise((d_in, *RESIDUAL_WIDTHS)))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in sizes)
        self.shortcuts = nn.ModuleList(nn.Linear(a, b, bias=False) if a != b else nn.Identity() for a, b in sizes)
        self.out = nn.Linear(RESIDUAL_WIDTHS[-1], d_out)

    def forward(self, x):
        """x: (..., d_in) -> (..., d_out)."""
        for layer, shortcut in zip(self.layers, self.shortcuts):
            x = F.leaky_relu(layer(x)) + shortcut(x)
        return self.out(x)


def _mean_over_elements(x, pad):
    """x: (B, E, D), pad: (B, E), True = ignore -> (B, D)."""
    return x.masked_fill(pad[..., None], 0).sum(1) / (~pad).sum(1, keepdim=True)


def _dense(widths, dropout):
    """Linear layers between these widths, each followed by LeakyReLU and dropout."""
    steps = [(nn.Linear(a, b), nn.LeakyReLU(SLOPE), Dropout(dropout)) for a, b in pairwise(widths)]
    return [layer for step in steps for layer in step]


def _initialised_by(initialise):
    """What nn.Module.apply needs to give every convolution and linear layer Keras' start."""

    def start(module):
        if isinstance(module, nn.Linear | nn.Conv2d):
            initialise(module.weight)
            nn.init.zeros_(module.bias)

    return start
