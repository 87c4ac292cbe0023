"""How fast models of crystal structures train:  python tests/benchmarks/structure_step.py --dataset data/mp36k

A step is what `python -m xxlib.train` does: crystal graphs -> batch -> forward, backward, AdamW, on the CPU's threads.
Two encoders in turn: gated convolutions as published for CGCNN, and those of the structure preset, whose edges are
updated.  The dataset must have been prepared with --structure.  The last line is JSON; goal: 300 samples/s on 2 cores
at a mean of 26 atoms.
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm
from train_step import seconds

from xxlib.training import machine, state
from xxlib.training.presets import PRESETS

BATCH = {"cgcnn": 128, "edge_updates": 32}


def prepared(kind, arguments, folder):
    """A training state of the structure preset with an encoder of a kind, ready to step."""
    base = PRESETS["structure"]
    encoders = {"structure": replace(base.model.encoders["structure"], kind=kind)}
    config = base.but(
        name=kind, dataset=str(arguments.dataset.resolve()), batch_size=BATCH[kind], n_threads=arguments.threads,
        model=replace(base.model, encoders=encoders),
    )  # fmt: skip
    run = state.prepare(config, Path(folder), torch.device("cpu"))
    seconds(run.device, lambda: state.step(run), 3)
    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--samples", type=int, default=1280, help="of a turn")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine.keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        runs = {kind: prepared(kind, arguments, folder) for kind in BATCH}
    took = {kind: [] for kind in BATCH}
    for _ in tqdm(range(arguments.turns), unit="turn", file=sys.stderr):
        for kind, run in runs.items():
            n = max(1, arguments.samples // BATCH[kind])
            took[kind].append(seconds(run.device, lambda run=run: state.step(run), n) / n)
    dataset = next(iter(runs.values())).examples.dataset
    atoms = dataset.lengths("atom_ids", dataset.indices("train")).mean()
    found = {"device": machine.hardware(torch.device("cpu"), arguments.threads), "mean_atoms": round(float(atoms), 1)}
    found |= {
        "dataset": str(arguments.dataset),
        "preset": "structure",
        "seed": 0,
        "batch_size": BATCH,
        "commit": machine.commit(),
    }
    for kind, times in took.items():
        found[f"{kind}_samples_per_s"] = round(BATCH[kind] / statistics.median(times), 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
