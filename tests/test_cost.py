"""What a training step costs, against counts by hand; and the benchmark that measures it."""

import dataclasses
import json
import subprocess
import sys

import pandas as pd
import pytest

from xxlib import PROJECT
from xxlib.training.config import ConfigError
from xxlib.training.cost import step_cost
from xxlib.training.presets import PRESETS

L, P, FEATURES = 17, 250, 200
# Different numbers of layers, so that none is counted in another's place.
SMALL = PRESETS["small"].model
SHORT = PRESETS["small"].but(
    model=dataclasses.replace(
        SMALL,
        encoders={name: dataclasses.replace(sizes, n_layers=1) for name, sizes in SMALL.encoders.items()},
        fusion=dataclasses.replace(SMALL.fusion, n_layers=2),
    )
)


def attention(queries, keys, width, own_keys):
    """Multiplications and additions, in pairs, of an attention with all its linear layers."""
    project = queries * width * width + own_keys * width * 2 * width
    return project + 2 * queries * keys * width + queries * width * width


def forward(model, E):
    """Pairs of multiplication and addition in a forward pass of the bimodal model with one regression."""
    F, fusion_config = model.d_fused, model.fusion
    of_composition, of_xrd = (model.encoders[name] for name in ("composition", "xrd"))
    D = of_xrd.d_model
    elements, tokens = 1 + E, 1 + L
    composition = E * FEATURES * D + elements * D * F
    layer = attention(elements, elements, D, elements) + 2 * elements * D * of_composition.d_ff
    composition += of_composition.n_layers * layer
    layer = attention(tokens, tokens, D, tokens) + 2 * tokens * D * of_xrd.d_ff
    xrd = of_xrd.n_layers * layer + tokens * D * F
    fusion = 0
    for rows in [tokens] * (fusion_config.n_layers - 1) + [1]:  # the last layer computes the CLS alone
        fusion += attention(rows, tokens, F, tokens) + attention(rows, elements, F, elements)
        fusion += 2 * rows * F * fusion_config.d_ff
    return composition + L * P * D + xrd + fusion + F


def forward_and_backward(model, E):
    """FLOP: the backward pass is twice the forward one, but for the pattern, of which nobody asks the gradient."""
    return 2 * (3 * forward(model, E) - L * P * model.encoders["xrd"].d_model)


def test_operations_are_those_counted_by_hand():
    flops, _ = step_cost(SHORT, n_elements=5)
    assert flops == forward_and_backward(SHORT.model, 5)


def test_a_model_of_structures_is_not_counted():
    with pytest.raises(ConfigError, match="structure reads structure: what a step of it costs depends on the crystals"):
        step_cost(PRESETS["structure"])


def test_the_committed_counts_are_those_of_the_presets():
    """GFLOP per sample in data/results/throughput.csv, of both modalities and four elements."""
    table = pd.read_csv(PROJECT / "data" / "results" / "throughput.csv")
    table = table[table["modalities"] == "composition + xrd"]
    assert set(table["preset"]) == {"small", "paper"}
    for preset, gflop in zip(table["preset"], table["GFLOP per sample"]):
        assert gflop == pytest.approx(forward_and_backward(PRESETS[preset].model, 4) / 1e9, rel=5e-3)


def test_bytes_fall_with_precision_and_with_the_share_of_the_weights():
    _, bytes_ = step_cost(SHORT)
    _, half = step_cost(SHORT.but(precision="bf16"))
    _, alone = step_cost(SHORT.but(batch_size=1))
    assert L * P * 4 < half < bytes_ < alone


def test_the_benchmark_ends_with_what_was_asked_of_it(tmp_path):
    """As a process, on the embedded dataset."""
    script = PROJECT / "tests" / "benchmarks" / "train_step.py"
    arguments = ["--preset", "smoke", "--batch-size", "16", "--micro-batch", "8", "--checkpointing", "--turns", "1"]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["device"].endswith("2 threads") and said["precision"] == {"smoke": "fp32"}
    for name in ("samples_per_s", "mfu", "ratio_plain", "pipeline_samples_per_s", "peak_memory_mb"):
        assert said[name]["smoke"] > 0, name
    assert said["gflop_per_sample"]["smoke"] == pytest.approx(
        forward_and_backward(PRESETS["smoke"].model, 4) / 1e9, abs=1e-4
    )
