"""A batch divided over processes and micro-batches: the same loss, the same gradient."""

import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import config, rock_salt_dataset

from xxlib.models.layers import recompute_layers
from xxlib.training import parallel, steps
from xxlib.training.examples import examples_of
from xxlib.training.losses import contrastive_loss
from xxlib.training.objectives import step_gradients
from xxlib.training.state import build_model

CPU = torch.device("cpu")
CONTRASTIVE = {"contrastive": (("composition", "xrd"),), "targets": ()}
BOTH = CONTRASTIVE | {"masked": ("xrd",)}
RELATIONAL = {"relational": (("composition", "xrd"), ("xrd", "composition")), "targets": ()}
ELEMENTS = {"masked": ("composition",), "modalities": ("composition",), "targets": ()}
TARGETS = {"targets": ("e_form", "crystal_system")}
# what is trained, size of the batch, micro-batch of the divided run
MEASURED = {"effects": "laboratory", "absent_rate": 0.2, "one_target": False, "likelihood": True}
CASES = {
    "pretraining": (BOTH, 64, 16),
    "pretraining, one micro-batch a process": (BOTH, 64, None),
    "pretraining, uneven": (BOTH, 7, 2),
    "similarities of another modality": (RELATIONAL, 7, 2),
    "hidden elements": (ELEMENTS, 13, 3),
    "missing labels": ({"targets": ("e_form",)}, 13, None),
    "missing labels, uneven micro-batches": ({"targets": ("e_form",)}, 13, 3),
    "drawn targets": (TARGETS, 32, 5),
    "measured patterns": (TARGETS | MEASURED, 13, 3),
}
BOUNDS = {torch.float64: (1e-10, 1e-8), torch.float32: (1e-6, 1e-5)}  # of the loss, of the gradient


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return rock_salt_dataset(tmp_path_factory.mktemp("parallel") / "rock-salts", unlabelled_every=5)


def gradients(dataset, name, dtype, divided):
    """Losses and gradients of a step of a case, without dropout; in micro-batches where it is `divided`."""
    what, batch_size, micro_batch = CASES[name]
    run = config(dataset, batch_size=batch_size, micro_batch=micro_batch if divided else None, dropout=0.0, **what)
    examples = examples_of(run)
    torch.manual_seed(0)
    model = build_model(run).to(dtype).train()
    losses = step_gradients(model, examples, run, 3, CPU)
    return losses, {key: p.grad for key, p in model.named_parameters() if p.grad is not None}


def in_double(make_batch):
    """Batches for a model in float64."""

    def made(*arguments, **options):
        batch = make_batch(*arguments, **options)
        for name, inputs in batch.inputs.items():
            values = (x.double() if x is not None and x.is_floating_point() else x for x in inputs)
            batch.inputs[name] = type(inputs)(*values)
        return batch

    return made


def one_process(rank, world, port, dataset, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    torch.set_num_threads(1)
    plain = steps.make_batch
    with parallel.processes():
        found = {}
        for dtype in BOUNDS:
            steps.make_batch = in_double(plain) if dtype == torch.float64 else plain
            found |= {(name, dtype): gradients(dataset, name, dtype, divided=True) for name in CASES}
        found["share"] = parallel.share(7)
        found["flags"] = parallel.any_process(rank == 1, False)
        torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def two_processes(dataset, tmp_path_factory):
    """What each of two real processes found."""
    folder = tmp_path_factory.mktemp("found")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(one_process, (2, port, dataset, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def assert_equal(found, expected, dtype):
    losses, grads = found
    expected_losses, expected_grads = expected
    loss_bound, gradient_bound = BOUNDS[dtype]
    assert losses.keys() == expected_losses.keys() and grads.keys() == expected_grads.keys()
    for name, loss in losses.items():
        assert abs(loss - expected_losses[name]) <= loss_bound * abs(expected_losses[name]), name
    whole = sum(grad.square().sum() for grad in expected_grads.values()).sqrt()
    assert whole > 0
    for name, grad in grads.items():
        assert (grad - expected_grads[name]).norm() <= gradient_bound * whole, name


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_a_divided_batch_is_the_whole_batch(dataset, two_processes, name, dtype, monkeypatch):
    if dtype == torch.float64:
        monkeypatch.setattr(steps, "make_batch", in_double(steps.make_batch))
    expected = gradients(dataset, name, dtype, divided=False)
    assert_equal(gradients(dataset, name, dtype, divided=True), expected, dtype)
    for found in two_processes:
        assert_equal(found[name, dtype], expected, dtype)


def test_processes_share_unevenly_and_agree_on_flags(two_processes):
    assert [found["share"] for found in two_processes] == [slice(0, 4), slice(4, 7)]
    assert [found["flags"] for found in two_processes] == [(True, False)] * 2


def test_the_second_pass_repeats_the_dropout_of_the_first(dataset):
    """Micro-batches against cached embeddings give the gradient of one graph over all of them."""
    run = config(dataset, batch_size=12, micro_batch=5, dropout=0.3, **CONTRASTIVE)
    examples = examples_of(run)
    models = [build_model(run).train() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    step_gradients(models[0], examples, run, 3, CPU)
    embedded, rows = [], steps.rows_of_step(examples, run, 3)
    for k, start in enumerate(range(0, 12, 5)):
        batch = steps.make_batch(examples.dataset, rows[start : start + 5])
        steps.seed_model(run, 3, k)
        embedded.append(models[1].summaries(batch.inputs, ("composition", "xrd")))
    contrastive_loss(*map(torch.cat, zip(*embedded)), *models[1].logit_scales.values()).backward()
    for (name, one), (_, two) in zip(models[0].named_parameters(), models[1].named_parameters()):
        if two.grad is not None:
            assert torch.allclose(one.grad, two.grad, rtol=1e-4, atol=1e-6), name


def peaks(dataset, found):
    """Megabytes that the memory of a process grew to in three steps, one after the other."""
    torch.set_num_threads(1)
    sizes = []
    for batch_size, micro_batch in ((32, 32), (2048, 32), (2048, None)):
        run = config(dataset, batch_size=batch_size, micro_batch=micro_batch, checkpointing=True, targets=("e_form",))
        examples = examples_of(run)
        model = build_model(run).train()
        recompute_layers(model)
        step_gradients(model, examples, run, 0, CPU)
        # Not ru_maxrss, which a process inherits from the one that starts it.
        sizes.append(int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1e3)
    found.put(sizes)


def test_memory_grows_with_the_micro_batch_and_not_with_the_batch(dataset):
    """So the paper's batch of 32,768 fits wherever one micro-batch does."""
    spawned = torch.multiprocessing.get_context("spawn")
    found = spawned.Queue()
    process = spawned.Process(target=peaks, args=(dataset, found))
    process.start()
    one, many, whole = found.get(timeout=300)
    process.join()
    assert many - one < 20 < 100 < whole - many


def test_dropout_differs_between_processes_and_steps(monkeypatch, dataset):
    seeds = []
    monkeypatch.setattr(steps.torch, "manual_seed", seeds.append)
    for rank in range(2):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        for step in range(2):
            for k in range(2):
                steps.seed_model(config(dataset), step, k)
    assert len(set(seeds)) == 8


def test_masks_depend_on_the_position_in_the_whole_batch(dataset):
    run = config(dataset, batch_size=64, **BOTH)
    examples = examples_of(run)
    hidden, again, next_step = (steps.hidden_of_step(examples, run, step, "xrd") for step in (5, 5, 6))
    assert torch.equal(hidden, again) and not torch.equal(hidden, next_step)
    assert np.array_equal(hidden.shape, (64, 17))
