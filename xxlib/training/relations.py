"""What was measured of samples in one modality, as vectors whose cosines say how alike they are: nothing is learned.

Relational pretraining teaches these similarities to the encoder of another modality.
"""

from xxlib.models.encoders.composition import MAX_Z


def amounts(composition):
    """The fractions (B, 119) of a Composition by atomic number."""
    element_ids, fractions = composition.element_ids, composition.fractions
    return fractions.new_zeros(len(fractions), MAX_Z + 1).scatter_add(1, element_ids, fractions)


def amplitudes(pattern):
    """The roots of the intensities (B, L P) of a Pattern: weak lines count, too."""
    return pattern.tokens.flatten(1).sqrt()


MEASURED = {"composition": amounts, "xrd": amplitudes}  # modality -> its input as vectors
