"""How fast a training step is, beside a plain one:  python tests/benchmarks/train_step.py --dataset data/mp36k

Ours is what `python -m xxlib.train` does: sticks -> batch -> forward, backward, AdamW.  The plain form is the same
network of nn.TransformerEncoder and nn.TransformerDecoder, as a user would write it, fed patterns that were computed
before by a DataLoader with workers.  Both in one process, in turn, at the same precision; ratio_plain is the median of
the ratios of neighbouring turns.  --no-plain leaves it out, for batches that only micro-batches and checkpointing fit:

    train_step.py --preset paper --batch-size 32768 --micro-batch 2048 --checkpointing --no-plain

mfu is FLOP of the model (training/cost.py) over seconds and peak.  The peak of an H100 or H200 is taken as 989 TFLOP/s
(bf16, dense, as NVIDIA states it); elsewhere it is the rate of a large matrix product, measured here.
pipeline_samples_per_s is that of making batches alone, on the device.  The last line is JSON.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from xxlib import PROJECT
from xxlib.datasets.batches import make_batch
from xxlib.models.encoders.composition import MAX_Z, fraction_encodings
from xxlib.training import machine, state
from xxlib.training.cost import step_cost
from xxlib.training.presets import PRESETS
from xxlib.training.steps import rows_of_step

PEAK = 989e12  # FLOP/s of NVIDIA's H100 and H200 (SXM), bf16, dense
BATCH = {"cpu": {"paper": 32}, "cuda": {"small": 4096, "paper": 4096}}  # else the preset's own
N_PATTERNS = {"cpu": 4096, "cuda": 32768}  # at most, that the plain form holds in memory
LONGEST_PRODUCT = {"cpu": 2048, "cuda": 8192}  # rows of the matrices whose product gives a peak


# ---------------------------------------------------------------- the plain form


class Plain(nn.Module):
    """The network of a ModelConfig with one regression, of torch's own transformer layers."""

    def __init__(self, config):
        super().__init__()
        composition, xrd, fusion = config.encoders["composition"], config.encoders["xrd"], config.fusion
        D, dropout = xrd.d_model, config.dropout
        self.element_vectors, self.embed = nn.Embedding(MAX_Z + 1, 200, padding_idx=0), nn.Linear(200, D)
        self.register_buffer("encodings", fraction_encodings(D // 2))
        self.embed_tokens, self.positions = nn.Linear(250, D), nn.Parameter(torch.randn(18, D))
        self.composition_cls, self.xrd_cls = nn.Parameter(torch.randn(D)), nn.Parameter(torch.randn(D))

        def encoder(sizes):
            layer = nn.TransformerEncoderLayer(D, sizes.n_heads, sizes.d_ff, dropout, batch_first=True)
            return nn.TransformerEncoder(layer, sizes.n_layers, enable_nested_tensor=False)

        self.composition_encoder, self.xrd_encoder = encoder(composition), encoder(xrd)
        self.project_composition, self.project_xrd = nn.Linear(D, config.d_fused), nn.Linear(D, config.d_fused)
        layer = nn.TransformerDecoderLayer(config.d_fused, fusion.n_heads, fusion.d_ff, dropout, batch_first=True)
        self.fusion, self.head = nn.TransformerDecoder(layer, fusion.n_layers), nn.Linear(config.d_fused, 1)

    def forward(self, element_ids, fractions, patterns):
        """element_ids, fractions: (B, E).  patterns: (B, 4250)."""
        log_fractions = (0.0025 * torch.log2(fractions.clamp_min(1e-9)) ** 2).clamp_max(1)
        codes = [self.encodings[(f * 5000).round().long().clamp_min(1) - 1] for f in (fractions, log_fractions)]
        x = self.embed(self.element_vectors(element_ids)) + torch.cat(codes, dim=-1)
        x = torch.cat([self.composition_cls.expand(len(x), 1, -1), x], dim=1)
        pad = torch.cat([torch.zeros_like(element_ids[:, :1], dtype=torch.bool), element_ids == 0], dim=1)
        composition = self.project_composition(self.composition_encoder(x, src_key_padding_mask=pad))
        tokens = self.embed_tokens(patterns.view(-1, 17, 250) / 10)
        tokens = torch.cat([self.xrd_cls.expand(len(tokens), 1, -1), tokens], dim=1) + self.positions
        xrd = self.project_xrd(self.xrd_encoder(tokens))
        return self.head(self.fusion(xrd, composition, memory_key_padding_mask=pad)[:, 0])[:, 0]


class Crystals(torch.utils.data.Dataset):
    """Compositions, patterns and labels, ready in memory."""

    def __init__(self, examples, n):
        rows = examples.rows["train"][:n]
        labels = {"targets": examples.targets, "normalisers": examples.normalisers}
        batches = [make_batch(examples.dataset, np.array([row]), **labels) for row in rows]
        self.items = [
            (*(values[0] for values in b.inputs["composition"][:2]), b.inputs["xrd"].tokens.flatten(),
             b.targets["e_form"][0])
            for b in batches
        ]  # fmt: skip

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def collate(items):
    """element_ids and fractions (B, E) padded to the longest, patterns (B, 4250), targets (B,)."""
    element_ids, fractions, patterns, targets = zip(*items)
    return *(pad_sequence(x, batch_first=True) for x in (element_ids, fractions)), *map(
        torch.stack, (patterns, targets)
    )


def plain_steps(run):
    """Endless: each next() is one training step of the plain form."""
    config, cuda = run.config, run.device.type == "cuda"
    crystals = Crystals(run.examples, N_PATTERNS[run.device.type])
    loader = torch.utils.data.DataLoader(
        crystals, min(config.budget.batch_size, len(crystals)), shuffle=True, drop_last=True, collate_fn=collate,
        num_workers=8 if cuda else config.machine.n_threads, pin_memory=cuda, persistent_workers=True,
    )  # fmt: skip
    model = Plain(config.model).to(run.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=state.BETAS, weight_decay=state.WEIGHT_DECAY)
    while True:
        for batch in loader:
            *inputs, targets = (tensor.to(run.device, non_blocking=True) for tensor in batch)
            with torch.autocast(run.device.type, torch.bfloat16, enabled=config.budget.precision == "bf16"):
                loss = nn.functional.mse_loss(model(*inputs).float(), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield


# ---------------------------------------------------------------- measuring


def seconds(device, function, n):
    """Of n calls."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(n):
        function()
    _wait(device)
    return time.perf_counter() - start


def _wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_flops(device, precision):
    """(FLOP/s, where from) of a device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    if precision == "bf16" and ("H100" in name or "H200" in name):
        return PEAK, "989 TFLOP/s, NVIDIA's bf16 dense"
    n = LONGEST_PRODUCT[device.type]
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    a @ a
    least = min(seconds(device, lambda: a @ a, 1) for _ in range(5))
    return 2 * n**3 / least, f"measured: product of matrices of {n} rows"


def pipeline_rate(run, n=4):
    """Samples per second of making the batches of n steps on the device, and bytes of sticks a sample."""
    examples, config = run.examples, run.config
    part = min(config.budget.batch_size, config.machine.micro_batch or config.budget.batch_size)
    rows = [rows_of_step(examples, config, step)[:part] for step in range(n)]
    todo = iter(rows * 2)

    def make():
        labels = {"targets": examples.targets, "normalisers": examples.normalisers}
        make_batch(examples.dataset, next(todo), device=run.device, **labels)

    seconds(run.device, make, n)
    rate = n * part / seconds(run.device, make, n)
    sizes = [examples.dataset.take(name, np.concatenate(rows))[0].nbytes for name in ("two_theta", "intensity")]
    return rate, sum(sizes) / (n * part)


def synchronisations(run):
    """Messages of torch about waiting for the GPU within a step; nothing on a CPU."""
    if run.device.type != "cuda":
        return []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        state.step(run)
        torch.cuda.set_sync_debug_mode("default")
    return [f"{message.filename}:{message.lineno} {message.message}" for message in caught]


def peak_memory_mb(device):
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(config, device, turns, with_plain):
    """What is said of one preset."""
    with tempfile.TemporaryDirectory() as folder:
        run = state.prepare(config, Path(folder), device)
    seconds(device, lambda: state.step(run), 2)
    n = max(1, round(1.0 / seconds(device, lambda: state.step(run), 1)))  # steps of a turn: about a second
    waits = synchronisations(run)
    memory = peak_memory_mb(device)
    if with_plain:
        plain = plain_steps(run)
        seconds(device, lambda: next(plain), 2)
    ours, theirs = [], []
    for _ in tqdm(range(turns), desc=config.name, unit="turn", file=sys.stderr):
        ours.append(seconds(device, lambda: state.step(run), n))
        if with_plain:
            theirs.append(seconds(device, lambda: next(plain), n))
    rate = n * config.budget.batch_size / statistics.median(ours)
    flops, moved = step_cost(config)
    peak, source = peak_flops(device, config.budget.precision)
    pipeline, stick_bytes = pipeline_rate(run)
    return {
        "samples_per_s": round(rate, 1),
        "mfu": round(rate * flops / peak, 4),
        "ratio_plain": round(statistics.median(t / o for o, t in zip(ours, theirs)), 3) if with_plain else None,
        "precision": config.budget.precision,
        "batch_size": config.budget.batch_size,
        "micro_batch": config.machine.micro_batch,
        "checkpointing": config.machine.checkpointing,
        "compile": config.machine.compile,
        "gflop_per_sample": round(flops / 1e9, 4),
        "mb_per_sample": round(moved / 1e6, 2),
        "peak_tflops": round(peak / 1e12, 3),
        "peak_from": source,
        "pipeline_samples_per_s": round(pipeline),
        "pipeline_ratio": round(pipeline / rate, 1),
        "stick_bytes_per_sample": round(stick_bytes),
        "peak_memory_mb": round(memory),
        "synchronisations": waits,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", choices=["smoke", "small", "paper", "both"], default="both")
    parser.add_argument("--dataset", type=Path, default=PROJECT / "data" / "demo")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="default: bf16 on a GPU, fp32 on a CPU")
    parser.add_argument("--batch-size", type=int, help="default: 4096 on a GPU; on a CPU the preset's, 32 for paper")
    parser.add_argument("--micro-batch", type=int)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--no-plain", action="store_true")
    parser.add_argument("--convolutions", action="store_true", help="read patterns so; leaves the plain form out")
    parser.add_argument("--turns", type=int, default=10)
    options = parser.parse_args()
    device, found = torch.device(options.device), {}
    for preset in ("small", "paper") if options.preset == "both" else (options.preset,):
        base = PRESETS[preset]
        config = base.but(
            dataset=str(options.dataset.resolve()),
            batch_size=options.batch_size or BATCH[device.type].get(preset, base.budget.batch_size),
            micro_batch=options.micro_batch,
            checkpointing=options.checkpointing,
            compile=options.compile,
            precision=options.precision or ("bf16" if device.type == "cuda" else "fp32"),
        )
        if options.convolutions:
            xrd = replace(config.model.encoders["xrd"], kind="convolutions")
            config = config.but(model=replace(config.model, encoders=config.model.encoders | {"xrd": xrd}))
        torch.set_num_threads(config.machine.n_threads)
        machine.keep_freed_memory()  # of which both forms have the benefit
        found[preset] = measure(config, device, options.turns, not (options.no_plain or options.convolutions))
        print(preset, json.dumps(found[preset]), flush=True)
    names = next(iter(found.values()))
    by_preset = {name: {preset: values[name] for preset, values in found.items()} for name in names}
    print(json.dumps({"device": machine.hardware(device, config.machine.n_threads), **by_preset}))


if __name__ == "__main__":
    main()
