"""How fast sticks and patterns are made, beside others:  python tests/benchmarks/diffraction.py CRYSTALS.parquet

CRYSTALS.parquet is the mp36k file.  One seeded sample of crystals; each ratio is the time of the peer over ours on the
same crystals in the same run, one thread.  xrd-rust is installed into build/, by this script alone.  The last line is
JSON.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from pymatgen.analysis.diffraction.xrd import XRDCalculator
from pymatgen.core import Lattice, Structure
from tqdm import tqdm

from xxlib import PROJECT
from xxlib.crystals.structures import crystal_from_structure
from xxlib.datasets.sources.parquet import parquet
from xxlib.diffraction import patterns
from xxlib.diffraction.scattering import PATTERN_RANGE, pack, sticks_of
from xxlib.training.machine import hardware

CLASSES = {"1-10 atoms": (1, 10), "11-30 atoms": (11, 30), "over 30 atoms": (31, 10**6)}
REPEATS = 40  # of what takes milliseconds; the fastest counts, as the machine may be busy with other things
PEER = PROJECT / "build" / "xrd-rust"


def seconds(*functions, repeats=REPEATS, clock=time.process_time):
    """Least time of some calls of each function, after one that compiles; in turn: all meet the same machine."""
    for function in functions:
        function()
    times = []
    for _ in range(repeats):
        row = []
        for function in functions:
            start = clock()
            function()
            row.append(clock() - start)
        times.append(row)
    least = [min(column) for column in zip(*times)]
    return least if len(least) > 1 else least[0]


def sample(path, n, seed):
    """Crystals of the parquet file and their pymatgen Structures."""
    rows = np.random.default_rng(seed).choice(pq.read_metadata(path).num_rows, n, replace=False)
    chosen = set(rows.tolist())
    crystals = [record.crystal() for row, record in enumerate(parquet(path).records()) if row in chosen]
    structures = [Structure(Lattice(c.lattice), c.atomic_numbers, c.frac_coords) for c in crystals]
    return crystals, structures


def calculator_seconds(calculator, structures, name):
    """Total time of a pymatgen-like calculator, each crystal once."""
    calculator.get_pattern(structures[0], two_theta_range=PATTERN_RANGE)
    start = time.process_time()
    for structure in tqdm(structures, desc=name, unit="crystal", file=sys.stderr):
        calculator.get_pattern(structure, two_theta_range=PATTERN_RANGE)
    return time.process_time() - start


def xrd_rust():
    """The calculator of xrd-rust."""
    if not PEER.exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(PEER)]
        subprocess.run([*install, "xrd-rust==0.3.5", "orjson"], check=True)
    sys.path.insert(0, str(PEER))
    from xrd_rust_calculator import XRDCalculatorRust

    return XRDCalculatorRust()


def plain_pattern(two_theta, intensity):
    """The pattern as a plain loop over peaks."""
    out = np.zeros(patterns.N_POINTS)
    for angle, height in zip(two_theta, intensity):
        out += height * np.exp(-0.5 * ((patterns.TWO_THETA - angle) / patterns.SIGMA) ** 2)
    return out * 100 / out.max()


def smearing(lines, seed):
    """Microseconds of a pattern, and the ratios of that step; the last two are costs beside a fixed Gaussian."""
    two_theta, intensity, offsets = lines.two_theta, lines.intensity, lines.offsets
    n, random = len(offsets) - 1, np.random.default_rng(seed)
    widths = np.repeat(random.uniform(0.07, 0.13, n), np.diff(offsets))
    shifts = random.uniform(-0.1, 0.1, n)
    each = random.uniform(0.07, 0.13, len(two_theta))
    fixed, varied, voigt = seconds(
        lambda: patterns.render(two_theta, intensity, offsets),
        lambda: patterns.render(two_theta, intensity, offsets, widths, shift=shifts),
        lambda: patterns.render(two_theta, intensity, offsets, each, mixing=0.5),
    )
    ends = offsets[:51]
    plain = seconds(lambda: [plain_pattern(two_theta[a:b], intensity[a:b]) for a, b in pairwise(ends)], repeats=1)
    pattern = {"xxlib": fixed / n * 1e6, "plain numpy loop": plain / 50 * 1e6}
    return pattern, {
        "ratio_plain_loop": pattern["plain numpy loop"] / pattern["xxlib"],
        "random_width_and_shift": varied / fixed,
        "voigt_width_per_peak": voigt / fixed,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("crystals", type=Path)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    crystals, structures = sample(options.crystals, options.n, options.seed)
    sizes = np.array([len(crystal.atomic_numbers) for crystal in crystals])
    classes = {name: np.flatnonzero((sizes >= low) & (sizes <= high)) for name, (low, high) in CLASSES.items()}
    peers = {"pymatgen": XRDCalculator(), "xrd-rust": xrd_rust()}

    ours, theirs = [], {peer: [] for peer in peers}
    for name, chosen in classes.items():
        packed = pack([crystals[i] for i in chosen])
        ours.append(seconds(lambda packed=packed: sticks_of(packed, two_theta_range=PATTERN_RANGE)))
        for peer, calculator in peers.items():
            title = f"{peer}, {name}"
            theirs[peer].append(calculator_seconds(calculator, [structures[i] for i in chosen], title))
        rates = ", ".join(f"{peer} {t[-1] / len(chosen) * 1e6:.0f}" for peer, t in theirs.items())
        print(f"{name}: {len(chosen)} crystals, microseconds each: xxlib {ours[-1] / len(chosen) * 1e6:.1f}, {rates}")

    def from_structures():
        sticks_of(pack([crystal_from_structure(s, "") for s in structures]), two_theta_range=PATTERN_RANGE)

    halves, threads = [pack(crystals * 2)] * 2, ThreadPoolExecutor(2)
    one, two = seconds(
        lambda: list(map(sticks_of, halves)), lambda: list(threads.map(sticks_of, halves)), clock=time.perf_counter
    )
    pattern, ratios = smearing(sticks_of(pack(crystals)), options.seed)
    stages = {
        f"sticks, {name}": {"xxlib": t, **{peer: times[i] for peer, times in theirs.items()}}
        for i, (name, t) in enumerate(zip(classes, ours))
    }
    numbers = [len(chosen) for chosen in classes.values()]
    result = {
        "n_crystals": len(crystals),
        "seed": options.seed,
        "hardware": hardware(torch.device("cpu"), 1),
        "us_per_crystal": {
            **{
                stage: {tool: t / n * 1e6 for tool, t in times.items()}
                for (stage, times), n in zip(stages.items(), numbers)
            },
            "pattern": pattern,
        },
        "ratio_pymatgen_packed": [peer / t for peer, t in zip(theirs["pymatgen"], ours)],
        "ratio_pymatgen_structures": sum(theirs["pymatgen"]) / seconds(from_structures, repeats=10),
        "ratio_xrd_rust_packed": [peer / t for peer, t in zip(theirs["xrd-rust"], ours)],
        "ratio_two_cores": one / two,
        **ratios,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
