"""Train what answers for a measured scan, on mp36k:  python data/results/predictor.py [NAME ...]

One model of all three targets, from composition, pattern or both; with effects of a laboratory on its patterns and, to
compare, without.  After data/results/mp36k.py, which makes the dataset and chooses the learning rate; results are put
beside the others in data/results/runs/.
"""

import argparse

from mp36k import chosen, finished, run_config

TARGETS = ("e_form", "band_gap", "crystal_system")
N_STEPS = 16_000  # twice a run of the tables: three targets, and patterns that never repeat
MODALITY_DROPOUT = 0.15


def predictors():
    """The RunConfig of each, by name."""
    rate = chosen("bimodal")
    for name, augmentation in (("predictor-laboratory-s0", "laboratory"), ("predictor-ideal-s0", None)):
        yield run_config(name, "bimodal", targets=TARGETS, n_steps=N_STEPS, learning_rate=rate,
                         modality_dropout=MODALITY_DROPOUT, augmentation=augmentation)  # fmt: skip


def main():
    configs = {config.name: config for config in predictors()}
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(configs)}; all where none is given")
    names = parser.parse_args().names or list(configs)
    for name in names:
        if name not in configs:
            parser.error(f"there is no {name}: choose from {', '.join(configs)}")
    for name in names:
        result = finished(configs[name])
        shown = {key: round(value, 4) for key, value in result.items() if key.startswith("test ") or "test/" in key}
        print(name, f"{result['seconds'] / 60:.1f} min", shown, flush=True)


if __name__ == "__main__":
    main()
