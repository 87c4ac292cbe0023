"""A training under way: its model and optimiser, and where it stands; one step of it; how it is saved and taken up."""

import dataclasses
import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from xxlib.crystals.compositions import mat2vec
from xxlib.crystals.descriptions import WORDS
from xxlib.datasets import splits
from xxlib.datasets.batches import collate_composition, make_batch
from xxlib.datasets.store import DatasetError
from xxlib.datasets.writing import write_atomically
from xxlib.models.build import build
from xxlib.models.encoders.composition import MAX_Z
from xxlib.models.layers import compile_layers, recompute_layers
from xxlib.models.xxact import count_parameters
from xxlib.training import parallel, runs
from xxlib.training.config import ConfigError, RunConfig, from_dict
from xxlib.training.divergence import explain, first_bad_step
from xxlib.training.embeddings import read_by_heads
from xxlib.training.examples import Examples, examples_of
from xxlib.training.machine import commit
from xxlib.training.objectives import step_gradients
from xxlib.training.schedule import learning_rate
from xxlib.training.starts import start_from
from xxlib.training.teachers import vectors_to_learn

BETAS, WEIGHT_DECAY = (0.9, 0.98), 0.01  # the paper's
COUNTED = 256  # training crystals of which it is said how many texts a language model cannot read to their end


@dataclass
class Run:
    """A training under way."""

    config: RunConfig
    folder: Path
    device: torch.device
    examples: Examples
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    metadata: dict  # what model.safetensors says of itself
    parameters: int
    first_bad: torch.Tensor  # the first step whose loss or gradient was not finite, -1 = none so far
    average: AveragedModel | None  # of the weights of the last steps, where they are averaged
    step: int = 0  # how many are done
    best: list | None = None  # records of the evaluation whose weights model.safetensors holds
    seconds: float = 0.0  # of training, in all the processes that took their turn
    sums: dict = field(default_factory=dict)  # of each loss since the last records of `train`
    n_summed: int = 0

    @property
    def judged(self):
        """The model that is judged and kept."""
        return self.model if self.average is None else self.average.module


def prepare(config, folder, device):
    """A Run before its first step."""
    if config.budget.batch_size < parallel.n_processes():
        raise ConfigError(
            f"a batch of {config.budget.batch_size} cannot be shared by {parallel.n_processes()} processes"
        )
    examples = examples_of(config)
    if min(map(len, examples.rows.values())) < parallel.n_processes():
        raise DatasetError(f"{examples.dataset.folder} has a split with fewer crystals than there are processes")
    torch.manual_seed(config.seed)
    model = build_model(config)
    if config.model.element_vectors != "learned":
        model.encoders["composition"].set_element_vectors(mat2vec())
    for name in (name for name, encoder in config.model.encoders.items() if encoder.folder):
        model.encoders[name].read(WORDS)
        _count_long(model.encoders[name], name, examples)
    if config.model.element_terms:
        fit_element_terms(model.element_terms, examples)
    parameters = count_parameters(model)
    if config.initial:
        start_from(model, config)
    if config.frozen:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("heads."))
    model.to(device)
    average = None
    if config.budget.averaged:
        steps = max(1.0, config.budget.averaged * config.budget.n_steps)
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / steps))
    if config.machine.compile:
        compile_layers(model)
    if config.machine.checkpointing:
        recompute_layers(model)
    if config.frozen:
        examples = dataclasses.replace(examples, cls=read_by_heads(model, examples, config))
    if config.objectives.taught:
        examples = dataclasses.replace(examples, taught=vectors_to_learn(config, examples, device))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    dataset = examples.dataset.meta
    metadata = {
        "config": config.as_dict(),
        "normalisers": {name: dataclasses.asdict(fitted) for name, fitted in examples.normalisers.items()},
        "token_mean_square": examples.token_mean_square,
        "grid": dataset["grid"],
        "dataset": {name: dataset[name] for name in ("source", "wavelength", "counts")},
        "commit": commit(),
    }
    first_bad = torch.tensor(-1, device=device)
    return Run(config, folder, device, examples, model, optimizer, metadata, parameters, first_bad, average)


def _count_long(encoder, name, examples):
    """Warn where a language model cannot read some texts to their end."""
    rows = splits.beginning(examples.rows["train"], COUNTED, 0)
    n = encoder.n_too_long(make_batch(examples.dataset, rows, (name,)).inputs[name])
    if n:
        warnings.warn(
            f"{n} of {len(rows)} inputs {name!r} have more pieces than the {encoder.most} that its language model "
            "reads: what is beyond is not read",
            stacklevel=2,
        )


@torch.no_grad()
def fit_element_terms(element_terms, examples):
    """Set ElementTerms to the ridge regressions of the labels of train, normalised, on fractions."""
    rows = examples.rows["train"]
    for target in examples.targets:
        if target.name in element_terms:
            labels = examples.normalisers[target.name].normalise(examples.dataset.labels[target.name][rows])
            labelled = np.isfinite(labels)
            element_ids, fractions, _ = collate_composition(examples.dataset, rows[labelled])[0]
            shares = fractions.new_zeros(len(fractions), MAX_Z + 1).scatter_add_(1, element_ids, fractions).double()
            left = shares.T @ shares + torch.eye(MAX_Z + 1, dtype=torch.float64)
            terms = torch.linalg.solve(left, shares.T @ torch.from_numpy(labels[labelled]))
            element_terms[target.name].weight.copy_(terms[:, None])


def build_model(config):
    """The model of a RunConfig, untrained."""
    if config.model.architecture != "xxact":
        return build(config.model, config.widths)
    objectives = config.objectives
    pretraining = {"contrastive": objectives.contrastive, "masked": objectives.masked, "partial": config.partial}
    return build(config.model, config.widths, **pretraining)


def resume(run):
    """Take a run to the step of the checkpoint in its folder, where there is one."""
    state = runs.load_state(run.folder)
    if state is None:
        if parallel.rank() == 0:
            (run.folder / "metrics.jsonl").write_text("")
        return
    if not from_dict(state.get("config")).is_same_run(run.config):
        raise ConfigError(
            f"{run.folder} holds the state of another run: give this run another name, or remove the folder"
        )
    try:
        runs.load_weights(run.model, state["model"], run.folder / "state.pt")
        run.optimizer.load_state_dict(state["optimizer"])
        if run.average is not None:
            run.average.load_state_dict(state["average"])
        run.step, run.best, run.seconds = state["step"], state["best"], state["seconds"]
        run.sums, run.n_summed = {name: s.to(run.device) for name, s in state["sums"].items()}, state["n_summed"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, runs.CheckpointError):
            raise
        raise runs.CheckpointError(
            f"{run.folder / 'state.pt'} is not the state of this run ({type(error).__name__}: {error}): remove it and "
            "train again"
        ) from error
    if parallel.rank() == 0:
        lines = [one for one in runs.metrics(run.folder) if one["step"] <= run.step]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_atomically(run.folder / "metrics.jsonl", text.encode())


def step(run):
    """One step of a Run."""
    config = run.config
    run.model.train(not config.frozen)  # heads alone have nothing that differs in training
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(run.step, config.budget.n_steps, config.budget.learning_rate)
    losses = step_gradients(run.model, run.examples, config, run.step, run.device)
    run.first_bad = first_bad_step(run.first_bad, run.step, losses, run.model)
    if run.device.type == "cpu":
        check_finite(run)  # a GPU would have to be waited for
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    if run.average is not None:
        run.average.update_parameters(run.model)
    run.step += 1
    run.sums = {name: run.sums.get(name, 0) + loss for name, loss in losses.items()}
    run.n_summed += 1


def check_finite(run):
    """Raise FloatingPointError where a step so far was not finite."""
    bad = int(run.first_bad)
    if bad >= 0:
        raise FloatingPointError(explain(run.folder, run.examples, run.config, bad))


def checkpoint(run):
    """Save all that a Run needs to go on."""
    if parallel.rank() == 0:
        state = {name: getattr(run, name) for name in ("step", "best", "seconds", "sums", "n_summed")}
        state |= {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict()}
        if run.average is not None:
            state["average"] = run.average.state_dict()
        runs.save_state(run.folder, state | {"config": run.config.as_dict()})
