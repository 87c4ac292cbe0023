"""Run folders: what a training writes, and how it is read back after anything happened.

run.json            the whole RunConfig
metrics.jsonl       one record a line (records.py): each 1 % of the run losses on `train`, each 5 % metrics on `val`
output.log          what the processes of the training print
pid                 which process runs the run (launching/processes.py), while it does
failure.txt         why it failed, where it did
model.safetensors   weights of the evaluation that was best on `val`, with all that prediction needs in its metadata
state.pt            everything that a stopped run needs to go on; *.sha256 beside both
predictions.parquet of the best weights on `val` and `test`
results.json        final records, parameters, seconds, hardware, commit; it exists when the run has finished
"""

import hashlib
import io
import json
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from xxlib import PROJECT
from xxlib.datasets.writing import write_atomically
from xxlib.training import records

RUNS = PROJECT / "data" / "runs"
# What of results.json is read again, and as what.
RESULTS = {"name": str, "hardware": str, "commit": str, "metrics": list}
RESULTS |= dict.fromkeys(("samples", "best_step"), int)
RESULTS["parameters"] = int | None  # of gradient boosting nobody counts them

# What a file whose bytes are right and whose content is not makes its reader raise.
UNREADABLE = (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError,
              AttributeError, OverflowError)  # fmt: skip


class CheckpointError(ValueError):
    """A checkpoint that is damaged or of another run; the message says which file and the way out."""


def write_json(path, values):
    write_atomically(path, (json.dumps(values, indent=1) + "\n").encode())


def write_checked(path, data):
    """Write bytes atomically with a sha256 sidecar, `path`.sha256.

    During the exchange the sidecar lists the old digests and the new one, so that the file always matches a line.
    """
    path = Path(path)
    sidecar = path.with_name(path.name + ".sha256")
    line = f"{hashlib.sha256(data).hexdigest()}  {path.name}\n"
    # An exchange that was cut short left two lines; either may be that of the file.
    old = sidecar.read_bytes() if sidecar.exists() and path.exists() else b""
    write_atomically(sidecar, line.encode() + old)
    write_atomically(path, data)
    write_atomically(sidecar, line.encode())


def read_checked(path):
    """Bytes of a file that matches its sha256 sidecar; raises CheckpointError where it does not."""
    path = Path(path)
    sidecar = path.with_name(path.name + ".sha256")
    if not path.is_file() or not sidecar.is_file():
        raise CheckpointError(f"{path} or its {sidecar.name} is missing: train again, or copy both files")
    data = path.read_bytes()
    digests = [line[:64] for line in sidecar.read_bytes().splitlines()]
    if hashlib.sha256(data).hexdigest().encode() not in digests:
        raise CheckpointError(f"{path} does not match its sha256: it is damaged, remove it and train again")
    return data


def save_model(folder, model, metadata):
    """model.safetensors; `metadata` (a dict) travels in its metadata as JSON."""
    save_weights(
        folder, {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}, metadata
    )


def save_weights(folder, tensors, metadata):
    """As save_model, of the tensors by name."""
    metadata = {name: json.dumps(value) for name, value in metadata.items()}
    write_checked(Path(folder) / "model.safetensors", save(tensors, metadata=metadata))


def load_model(folder, name="model.safetensors"):
    """(tensors by name, metadata) of model.safetensors; raises CheckpointError where it is damaged."""
    path = Path(folder) / name
    read_checked(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118, not a dict
    except UNREADABLE as error:
        raise CheckpointError(f"{path} is not a model ({_one_line(error)}): remove it and train again") from error


def load_weights(model, tensors, path):
    """Put tensors by name into a model.

    Raises CheckpointError where a name, a shape or a kind of number is not the model's, or a number is not finite.
    """
    check_weights(model, tensors, path)
    model.load_state_dict(tensors)


def check_weights(model, tensors, path):
    """Raise CheckpointError as load_weights does."""
    own = model.state_dict()
    unknown = sorted(set(own) ^ set(tensors))
    if unknown:
        raise CheckpointError(f"{path} is of another model: {unknown[0]} is not in both of them")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            shapes = f"{tuple(tensor.shape)} there, {tuple(own[name].shape)} in this model"
            raise CheckpointError(f"{path} is of another model: {name} is {shapes}")
        if tensor.is_floating_point() != own[name].is_floating_point() or tensor.is_complex():
            raise CheckpointError(f"{path} is of another model: {name} holds {tensor.dtype}, not {own[name].dtype}")
        if not tensor.float().isfinite().all():
            raise CheckpointError(f"{path} is damaged: {name} holds numbers that are not finite; train again")


def save_state(folder, state):
    """state.pt: plain tensors, numbers and strings."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_checked(Path(folder) / "state.pt", buffer.getbuffer())


def load_state(folder):
    """The state a run was last saved in, or None where there is none; raises CheckpointError where it is damaged."""
    path = Path(folder) / "state.pt"
    if not path.exists():
        return None
    data = read_checked(path)
    try:
        state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        if not isinstance(state, dict):
            raise ValueError(f"a {type(state).__name__}")
        return state
    except UNREADABLE as error:
        raise CheckpointError(
            f"{path} is not the state of a training ({_one_line(error)}): remove it and train again"
        ) from error


def _one_line(error):
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def metrics(folder):
    """The records of metrics.jsonl; a last line cut off by a kill is left out.  Raises CheckpointError for others."""
    path = Path(folder) / "metrics.jsonl"
    read, lines = [], (_text(path) or "").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            one = json.loads(line)
            records.check(one)
        except (ValueError, RecursionError) as error:
            if number == len(lines) and isinstance(error, json.JSONDecodeError):
                break
            raise CheckpointError(
                f"{path} is damaged, line {number} ({_one_line(error)}): remove that line to go on without it"
            ) from error
        read.append(one)
    return read


def results(folder):
    """results.json as a dict, or None where the run has not finished; raises CheckpointError where it is damaged."""
    path = Path(folder) / "results.json"
    text = _text(path)
    if text is None:
        return None
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("not an object")
        for name, kind in RESULTS.items():
            if name in values and not isinstance(values[name], kind):
                raise ValueError(f"{name} is {repr(values[name])[:40]}")
        for one in values.get("metrics", []):
            records.check(one)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({_one_line(error)}): remove it and train again") from error
    return values


def _text(path):
    """Of a file of a run folder; None where there is none."""
    try:
        if not path.exists():
            return None
        if not path.is_file():
            raise CheckpointError(f"{path} is no file: remove it")
        return path.read_text()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is damaged, not a text file ({error.reason}): remove it") from error
