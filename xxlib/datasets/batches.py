"""Batches: what one step of training sees, collated and rendered from sticks at the moment it is needed."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from xxlib.crystals.descriptions import NUMBER_OF
from xxlib.datasets.structures import graphs, has_structure, texts
from xxlib.diffraction import patterns
from xxlib.diffraction.simulation import augmented, expansion
from xxlib.models.encoders.text import MAX_WORDS
from xxlib.models.inputs import Composition, Description, Pattern, Structure, Text

MODALITIES = ("composition", "xrd")  # what a laboratory has
CPU = torch.device("cpu")
MAX_LETTERS = 8192  # of a description: several times what a language model has positions for
GPU_MULTIPLE = 8  # of 1 + E on a GPU: aligned attention, and one compiled kernel for compositions of up to 7 elements


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some samples, as the models take them."""

    inputs: dict[str, tuple]  # modality -> its input of models.inputs; empty for samples that do not have it
    given: dict[str, Tensor]  # modality -> (B,) bool, True = the sample has it
    targets: dict[str, Tensor]  # name -> (B,): normalised float32, NaN = no label; or class int64, -1 = no label

    def __len__(self):
        return len(next(iter(self.given.values())))

    def without(self, absent):
        """The same batch where `absent`, modality -> (B,) bool, says what is not given."""
        device = next(iter(self.given.values())).device
        absent = {name: send(which, device) for name, which in absent.items() if name in self.inputs}
        return replace(
            self,
            inputs=self.inputs | {name: self.inputs[name].without(which) for name, which in absent.items()},
            given=self.given | {name: self.given[name] & ~which for name, which in absent.items()},
        )

    def only(self, modalities):
        """The same batch from some modalities alone."""
        everyone = torch.ones(len(self), dtype=torch.bool)
        return self.without({name: everyone for name in self.inputs if name not in modalities})


def make_batch(
    dataset, rows, modalities=MODALITIES, targets=(), normalisers=None, *,
    drawn=None, distorted=None, device=CPU, rows_of=None,
):  # fmt: skip
    """Batch of some rows of a Dataset, on a device.

    A GPU is sent sticks, which are a tenth of the bytes, and renders the patterns; nothing here waits for it, so that
    the next batch is made while it computes.
    targets: Target objects; normalisers: name -> Normaliser for the regressions among them.
    drawn: effects drawn for these crystals (xxlib.diffraction.effects); the ideal patterns where None.
    distorted: distortions drawn for them (xxlib.crystals.distortions), which their texts describe; the structures as
    they are where None.
    rows_of: modality -> rows (B,) that its inputs come from, where that is not the rows themselves.
    """
    inputs, given, draws = {}, {}, {"xrd": drawn, "structure": distorted, "text": distorted}
    for name in modalities:
        own = (rows_of or {}).get(name, rows)
        inputs[name], has = COLLATE[name](dataset, own, device, draws.get(name))
        given[name] = send(torch.from_numpy(has), device)
    labels = make_targets(dataset, rows, targets, normalisers, drawn)
    return Batch(inputs=inputs, given=given, targets={name: send(values, device) for name, values in labels.items()})


def sample_batch(element_ids, fractions, signals, hidden):
    """Batch of n samples that are in no dataset.

    element_ids, fractions: n arrays, empty where the composition is not known.  signals: patterns (n, 4250), intensity
    0-100.  hidden: (n, 17) bool, True = nothing of this token was measured; all of them: there is no pattern.
    """
    ids, shares = _padded(np.concatenate(element_ids), np.concatenate(fractions), np.array(list(map(len, element_ids))))
    tokens, hidden = torch.from_numpy(patterns.patchify(np.asarray(signals))), torch.from_numpy(np.asarray(hidden))
    return Batch(
        inputs={
            "composition": Composition(torch.from_numpy(ids), torch.from_numpy(shares)),
            "xrd": Pattern(tokens, hidden),
        },
        given={"composition": torch.from_numpy(ids.any(1)), "xrd": ~hidden.all(1)},
        targets={},
    )


def send(tensor, device):
    """A tensor of the CPU on a device, without waiting for the copy."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def collate_composition(dataset, rows, device=CPU, drawn=None):
    """Composition of some rows on a device, and which of them have one (B,): all."""
    lengths = dataset.lengths("element_ids", rows)
    ids, fractions = (dataset.take(name, rows)[0] for name in ("element_ids", "fractions"))
    padded = _padded(ids, fractions, lengths, 1 if device.type == "cpu" else GPU_MULTIPLE)
    return Composition(*(send(torch.from_numpy(values), device) for values in padded)), lengths > 0


def collate_pattern(dataset, rows, device=CPU, drawn=None):
    """Pattern of some rows on a device, and which of them have one (B,).

    Effects are computed on the CPU; without them a GPU renders the patterns.
    """
    has = dataset.lengths("two_theta", rows) > 0
    if has.all():
        return _pattern(dataset, rows, device, drawn), has
    some, place = np.flatnonzero(has), send(torch.from_numpy(np.flatnonzero(has)), device)
    tokens = torch.zeros(len(rows), patterns.N_TOKENS, patterns.POINTS_PER_TOKEN, device=device)
    hidden = torch.ones(len(rows), patterns.N_TOKENS, dtype=torch.bool, device=device)
    if len(some):
        own = _pattern(dataset, rows[some], device, None if drawn is None else drawn[some])
        tokens[place], hidden[place] = own.tokens, False if own.hidden is None else own.hidden
    return Pattern(tokens, hidden), has


def collate_structure(dataset, rows, device=CPU, drawn=None):
    """Structure of some rows on a device, and which of them have one (B,); drawn: Drawn of xxlib.crystals.distortions.

    Raises DatasetError, naming the crystal, where two atoms share a site or one has no neighbour; drawn ones may.
    """
    has = has_structure(dataset, rows)
    some, lengths = rows[has], np.where(has, dataset.lengths("atom_ids", rows), 0)
    filled = np.arange(max(1, lengths.max())) < lengths[:, None]  # (B, T)
    atom_ids = np.zeros(filled.shape, np.int64)
    if not len(some):
        none = torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0)
        return Structure(*(send(x, device) for x in (torch.from_numpy(atom_ids), *none))), has
    _, numbers, _, graph = graphs(dataset, some, None if drawn is None else drawn[has])
    atom_ids[filled] = numbers
    edges = np.flatnonzero(filled)[np.stack([graph.centres, graph.others])]  # (2, M)
    tensors = (torch.from_numpy(x) for x in (atom_ids, edges, graph.distances))
    return Structure(*(send(x, device) for x in tensors)), has


def collate_text(dataset, rows, device=CPU, drawn=None):
    """Text of some rows on a device, and which of them have one (B,): those that have a structure.

    Words beyond MAX_WORDS are cut off.  drawn, and what is raised: as of collate_structure.
    """
    has = has_structure(dataset, rows)
    said = [words[:MAX_WORDS] for words in texts(dataset, rows[has], None if drawn is None else drawn[has])]
    lengths = np.zeros(len(rows), np.int64)
    lengths[has] = list(map(len, said))
    filled = np.arange(max(1, lengths.max())) < lengths[:, None]  # (B, S)
    word_ids = np.zeros(filled.shape, np.int64)
    word_ids[filled] = [NUMBER_OF[word] for words in said for word in words]
    return Text(send(torch.from_numpy(word_ids), device)), has


def collate_description(dataset, rows, device=CPU, drawn=None):
    """Description of some rows on a device, and which of them have one (B,); what is beyond MAX_LETTERS is cut off.

    Raises DatasetError where the dataset has no descriptions.
    """
    said = [dataset.descriptions[row].encode()[:MAX_LETTERS] for row in rows]
    lengths = np.array(list(map(len, said)), np.int64)
    filled = np.arange(max(1, lengths.max())) < lengths[:, None]  # (B, S)
    letters = np.zeros(filled.shape, np.uint8)
    letters[filled] = np.frombuffer(b"".join(said), np.uint8)
    return Description(send(torch.from_numpy(letters), device)), lengths > 0


COLLATE = {
    "composition": collate_composition,
    "xrd": collate_pattern,
    "structure": collate_structure,
    "text": collate_text,
    "description": collate_description,
}
COLUMNS = {"composition": "element_ids", "xrd": "two_theta"}  # that a row lacks where it lacks the modality
OF_STRUCTURES = {"structure", "text"}  # modalities that are read of one


def has_modalities(dataset, rows, modalities):
    """Which of some rows have each modality: modality -> (B,) bool."""
    has = {name: dataset.lengths(COLUMNS[name], rows) > 0 for name in modalities if name in COLUMNS}
    has |= {name: has_structure(dataset, rows) for name in modalities if name in OF_STRUCTURES}
    if "description" in modalities:
        has["description"] = dataset.descriptions[rows] != ""
    return {name: torch.from_numpy(has[name]) for name in modalities}


def _pattern(dataset, rows, device, drawn):
    two_theta, offsets = dataset.take("two_theta", rows)
    intensity, _ = dataset.take("intensity", rows)
    if drawn is None and device.type != "cpu":
        sticks = (send(torch.from_numpy(x), device) for x in (two_theta, intensity, offsets))
        return Pattern(patterns.patchify(render_torch(*sticks)))
    if drawn is None:
        return Pattern(torch.from_numpy(patterns.patchify(patterns.render(two_theta, intensity, offsets))))
    hkl = lattices = None
    if dataset.has_hkl:
        hkl = np.stack([dataset.take(index, rows)[0] for index in "hkl"], axis=1)
        lattices = dataset.take("lattice", rows)[0].reshape(-1, 6)
    signals, hidden = augmented(two_theta, intensity, offsets, drawn, hkl, lattices)
    tokens = torch.from_numpy(patterns.patchify(signals))
    return Pattern(send(tokens, device), send(torch.from_numpy(hidden), device))


def render_torch(two_theta, intensity, offsets):
    """patterns.render() in torch: patterns (B, 4250) float32 on the device of the sticks, without waiting for it.

    two_theta, intensity: (p,); offsets: (B + 1,).  Of the usual width; within 1e-3 of 100.
    """
    n_crystals, device = len(offsets) - 1, two_theta.device
    owner = torch.repeat_interleave(torch.arange(n_crystals, device=device), offsets.diff(), output_size=len(two_theta))
    position = (two_theta.double() - patterns.START) / patterns.STEP  # (p,) in grid points
    reach = math.ceil(patterns.REACH * patterns.SIGMA / patterns.STEP)
    nearest = position.round()
    window = torch.arange(-reach, reach + 1, device=device)  # (W,)
    u = (window - (position - nearest).float()[:, None]) * (patterns.STEP / patterns.SIGMA)  # (p, W)
    profile = torch.exp(-u * u / 2)
    # Rows with a margin of `reach`: what falls outside the grid is written there, and cut off.
    row = patterns.N_POINTS + 2 * reach
    point = nearest.long().clamp(-reach - 1, patterns.N_POINTS + reach)[:, None] + window + reach
    index = owner[:, None] * row + point.clamp(0, row - 1)
    out = torch.zeros(n_crystals * row, device=device)
    out.index_add_(0, index.flatten(), (intensity.float()[:, None] * profile).flatten())
    out = out.view(n_crystals, row)[:, reach : reach + patterns.N_POINTS]
    return out * (100 / out.amax(1, keepdim=True))


def labels_of(dataset, name, rows, drawn=None):
    """Labels (B,) of one target; where effects were drawn, those of the crystals that were measured under them."""
    values = dataset.labels[name][rows]
    if name != "log_volume" or drawn is None:
        return values
    has = np.isfinite(values)
    lattices = dataset.take("lattice", rows[has])[0].reshape(-1, 6) if dataset.has_hkl and has.any() else None
    values[has] += expansion(drawn[has], lattices)
    return values


def make_targets(dataset, rows, targets, normalisers, drawn=None):
    """The labels of some rows as Batch.targets has them; drawn: as make_batch takes it."""
    labels = {}
    for target in targets:
        values = labels_of(dataset, target.name, rows, drawn)
        if target.kind == "regression":
            labels[target.name] = torch.from_numpy(normalisers[target.name].normalise(values).astype(np.float32))
        else:
            labels[target.name] = torch.from_numpy(np.where(np.isfinite(values), values, -1).astype(np.int64))
    return labels


def _padded(ids, fractions, lengths, multiple=1):
    """element_ids (B, E) int64 and fractions (B, E) float32 of values laid end to end, padded with 0 to the longest.

    multiple: what 1 + E, the CLS counted, is to be a multiple of.
    """
    longest = -(-(1 + max(1, lengths.max())) // multiple) * multiple - 1
    filled = np.arange(longest) < lengths[:, None]
    element_ids, padded = np.zeros(filled.shape, np.int64), np.zeros(filled.shape, np.float32)
    element_ids[filled], padded[filled] = ids, fractions
    return element_ids, padded


def chunks(rows, size):
    """Some rows, at most `size` at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def exchanged_rows(rows):
    """For each of some rows another of them, half of them further on: pairs that do not belong together."""
    return np.roll(rows, len(rows) // 2)
