"""What models read: one input a modality, and the tokens that its encoder makes of it.

Shapes: B samples, E elements, L tokens of a pattern of P points each, S words or letters, T tokens of any modality, D
width; of all crystals together N atoms and M edges.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Composition(NamedTuple):
    """Which elements, and how much of each; of a sample that has none everything is padding."""

    element_ids: Tensor  # (B, E) int64, atomic number, 0 = padding
    fractions: Tensor  # (B, E) float32, sums to 1 over E
    hidden: Tensor | None = None  # (B, E) bool, True = the model sees [MASK] in place of the element

    @property
    def pad(self):
        """(B, E) bool, True = ignore."""
        return self.element_ids == 0

    def without(self, absent):
        """The same input, empty where `absent` (B,) bool."""
        element_ids, fractions = (values.masked_fill(absent[:, None], 0) for values in self[:2])
        return self._replace(element_ids=element_ids, fractions=fractions)

    def hide(self, hidden):
        """The same input with elements (B, E) bool hidden."""
        return self._replace(hidden=hidden)

    def jittered(self, jitter):
        """The same input, each fraction multiplied by a normal number around 1 of this standard deviation.

        They sum to 1 again, or to 0 where there are none.
        """
        moved = (self.fractions * (1 + jitter * torch.randn_like(self.fractions))).clamp(0, 1)
        return self._replace(fractions=moved / moved.sum(1, keepdim=True).clamp_min(1e-9))


class Pattern(NamedTuple):
    """A powder pattern in tokens; of a sample that has none every token is hidden."""

    tokens: Tensor  # (B, L, P) float32, intensity 0-100
    hidden: Tensor | None = None  # (B, L) bool, True = the model sees [MASK]: not measured, or to be guessed

    def without(self, absent):
        """The same input, hidden where `absent` (B,) bool."""
        return self.hide(absent[:, None].expand(self.tokens.shape[:2]))  # (B, L)

    def hide(self, hidden):
        """The same input with tokens (B, L) bool hidden, beside those that are already."""
        return self._replace(hidden=hidden if self.hidden is None else self.hidden | hidden)


class Structure(NamedTuple):
    """A crystal as a graph: its atoms, and which stand next to which; of a sample that has none all is padding."""

    atom_ids: Tensor  # (B, T) int64, atomic number, 0 = padding
    edges: Tensor  # (2, M) int64, centre and neighbour, places in atom_ids flattened; periodic images are edges too
    distances: Tensor  # (M,) float32, angstrom
    hidden: Tensor | None = None  # (B, T) bool, True = the model sees [MASK] in place of the element

    @property
    def pad(self):
        """(B, T) bool, True = ignore."""
        return self.atom_ids == 0

    def without(self, absent):
        """The same input, empty where `absent` (B,) bool."""
        return self._replace(atom_ids=self.atom_ids.masked_fill(absent[:, None], 0))

    def hide(self, hidden):
        """The same input with atoms (B, T) bool hidden."""
        return self._replace(hidden=hidden)


class Text(NamedTuple):
    """A crystal in words; of a sample that has none all is padding."""

    word_ids: Tensor  # (B, S) int64, numbers of words, 0 = padding

    @property
    def pad(self):
        """(B, S) bool, True = ignore."""
        return self.word_ids == 0

    def without(self, absent):
        """The same input, empty where `absent` (B,) bool."""
        return self._replace(word_ids=self.word_ids.masked_fill(absent[:, None], 0))


class Description(NamedTuple):
    """What somebody has written of a crystal; of a sample of which nothing is written all is padding."""

    letters: Tensor  # (B, S) uint8, in UTF-8, 0 = padding

    @property
    def pad(self):
        """(B, S) bool, True = ignore."""
        return self.letters == 0

    def without(self, absent):
        """The same input, empty where `absent` (B,) bool."""
        return self._replace(letters=self.letters.masked_fill(absent[:, None], 0))


class Tokens(NamedTuple):
    """What an encoder or a fusion says of a batch."""

    x: Tensor  # (B, 1 + T, D), CLS first
    pad: Tensor | None = None  # (B, 1 + T) bool, True = ignore; None: there is no padding


# Every modality by its name.
INPUTS = {
    "composition": Composition,
    "xrd": Pattern,
    "structure": Structure,
    "text": Text,
    "description": Description,
}
