"""One training in several processes, which torchrun starts: each holds the whole model and its part of every batch.

Without torchrun there is one process, and every function here returns what it was given.  Gradients are summed once a
step, after the last micro-batch, and not by DistributedDataParallel: its hooks expect one forward pass for one backward
pass of all parameters, which the two passes of the contrastive loss and the parts a run leaves out are not.
"""

import contextlib
import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.nn.functional import all_reduce


@contextlib.contextmanager
def processes():
    """The process group of torchrun's processes, for the duration of a training; gives the device of this process."""
    cuda = torch.cuda.is_available()
    if "WORLD_SIZE" not in os.environ:
        yield torch.device("cuda" if cuda else "cpu")
        return
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    yield device
    dist.destroy_process_group()  # not after an error: the other processes may be waiting where this one failed


def rank():
    """Number of this process, 0 .. n_processes() - 1; the first one writes the files."""
    return dist.get_rank() if dist.is_initialized() else 0


def n_processes():
    return dist.get_world_size() if dist.is_initialized() else 1


def share(n):
    """The part of n things that is this process's, as a slice; the first processes have one more where n is uneven."""
    size, more = divmod(n, n_processes())
    start = rank() * size + min(rank(), more)
    return slice(start, start + size + (rank() < more))


def gather(rows, n):
    """(n, ...) rows of all processes from each one's share of them; gradients flow back to their own process."""
    if n_processes() == 1:
        return rows
    own = share(n)
    around = [0, 0] * (rows.ndim - 1) + [own.start, n - own.stop]
    return all_reduce(F.pad(rows, around))


def sum_over_processes(tensors):
    """Add up tensors of one dtype over the processes, in place and in one message."""
    if n_processes() > 1:
        tensors = list(tensors)
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
            tensor.copy_(summed.view_as(tensor))


def any_process(*flags):
    """Which flags are set in any process: the same answer in all of them, without waiting for a GPU."""
    if n_processes() == 1:
        return flags
    votes = torch.tensor(flags, dtype=torch.int8)
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return tuple(votes.bool().tolist())
