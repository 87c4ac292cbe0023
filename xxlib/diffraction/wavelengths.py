"""Wavelengths of X-ray tubes: K-alpha1, K-alpha2 and their mean, in angstrom."""

# As pymatgen has them, so that sticks are pymatgen's: the mean is weighted by intensity, 2 to 1.
ANODES = {
    "Cu": (1.54056, 1.54439, 1.54184),
    "Mo": (0.70930, 0.71359, 0.71073),
    "Co": (1.78896, 1.79285, 1.79026),
    "Cr": (2.28970, 2.29361, 2.29100),
    "Fe": (1.93604, 1.93998, 1.93735),
    "Ag": (0.559421, 0.563813, 0.560885),
}
CU_KA = ANODES["Cu"][2]
KA2_RATIO = 0.5  # intensity of K-alpha2 over K-alpha1, where nothing else is known


def emission_lines(wavelength):
    """((angstrom, weight), ...) of a wavelength.

    wavelength: angstrom, or a name: "CuKa" (the weighted mean), "CuKa1", "CuKa2", "CuKa12" (the doublet, 2 to 1), and
    so for Mo, Co, Cr, Fe, Ag.  Raises ValueError for any other name.
    """
    if not isinstance(wavelength, str):
        return ((float(wavelength), 1.0),)
    anode, line = wavelength[:2], wavelength[2:]
    if anode in ANODES and line in ("Ka", "Ka1", "Ka2", "Ka12"):
        first, second, mean = ANODES[anode]
        return {
            "Ka": ((mean, 1.0),),
            "Ka1": ((first, 1.0),),
            "Ka2": ((second, 1.0),),
            "Ka12": ((first, 2 / 3), (second, 1 / 3)),
        }[line]
    raise ValueError(
        f"no wavelength {wavelength!r}: give angstrom, or {', '.join(ANODES)} followed by Ka, Ka1, Ka2, Ka12"
    )
