"""What an atom of each element takes up in a crystal."""

import numpy as np

# Cubic angstrom, hydrogen to californium: least squares of the volumes of 27,833 crystals of the Materials Project on
# their compositions (mp36k, `train`).  Ne, Ar, Po to Ra and Am to Cf, which these do not have, as their neighbours.
# fmt: off
ELEMENT_VOLUMES = np.array((
    0.0,
    7.2, 15.8, 12.9, 8.1, 7.3, 9.8, 8.6, 8.6, 11.7, 16.0,  # 1-10
    23.4, 21.7, 17.4, 18.3, 20.7, 23.3, 30.4, 35.0, 39.2, 28.7,  # 11-20
    19.3, 14.3, 13.5, 11.2, 11.8, 10.6, 8.5, 8.5, 11.1, 16.2,  # 21-30
    19.0, 19.7, 23.4, 28.3, 37.6, 43.7, 46.8, 33.8, 26.7, 20.2,  # 31-40
    17.7, 15.6, 14.2, 11.5, 12.2, 13.8, 19.7, 24.9, 27.0, 29.0,  # 41-50
    31.2, 36.8, 51.1, 51.6, 54.8, 42.9, 31.3, 26.7, 30.8, 29.8,  # 51-60
    31.9, 29.3, 28.9, 24.9, 26.5, 26.2, 26.3, 25.0, 25.4, 29.0,  # 61-70
    24.2, 19.3, 17.0, 17.3, 14.6, 12.8, 13.0, 15.0, 19.3, 27.8,  # 71-80
    32.0, 31.5, 33.2, 33.0, 51.0, 52.0, 60.0, 45.0, 42.5, 30.7,  # 81-90
    24.7, 21.4, 20.8, 23.9, 24.0, 24.0, 24.0, 24.0,  # 91-98
))
# fmt: on
