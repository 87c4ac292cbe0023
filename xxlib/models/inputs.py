"""What models read: one input a modality, and the tokens that its encoder makes of it.

Shapes: B samples, E elements, L tokens of a pattern of P points each, T tokens of any modality, D width.
"""

from typing import NamedTuple

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
        gone = absent[:, None]  # (B, 1)
        return self._replace(
            element_ids=self.element_ids.masked_fill(gone, 0), fractions=self.fractions.masked_fill(gone, 0)
        )


class Pattern(NamedTuple):
    """A powder pattern in tokens; of a sample that has none every token is hidden."""

    tokens: Tensor  # (B, L, P) float32, intensity 0-100
    hidden: Tensor | None = None  # (B, L) bool, True = the model sees [MASK]: not measured, or to be guessed

    @property
    def pad(self):
        """No token is ever ignored."""
        return None

    def without(self, absent):
        """The same input, hidden where `absent` (B,) bool."""
        gone = absent[:, None].expand(self.tokens.shape[:2])  # (B, L)
        return self._replace(hidden=gone if self.hidden is None else self.hidden | gone)


class Tokens(NamedTuple):
    """What an encoder or a fusion says of a batch."""

    x: Tensor  # (B, 1 + T, D), CLS first
    pad: Tensor | None = None  # (B, 1 + T) bool, True = ignore; None: there is no padding


INPUTS = {"composition": Composition, "xrd": Pattern}  # every modality by its name


def taken(given, rows):
    """Some rows of every input."""
    return {name: type(x)(*(None if part is None else part[rows] for part in x)) for name, x in given.items()}
