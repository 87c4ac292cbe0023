"""Transformer layers with the normalisation after each residual sum, as in Vaswani et al. 2017 and nn.Transformer.

Dropout falls on the branches and inside the feed-forward, not on attention weights: the fused attention kernels stay
usable on every device.
"""

import functools

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

COMPILED_SHAPES = 64  # of one layer, until torch gives up: batch, elements, CLS alone or all rows, gradient or none


class Dropout(nn.Module):
    """Zero each element with probability p and scale the others by 1 / (1 - p).

    On a CPU torch draws a Bernoulli number per element, one after the other, which is 30 % of a training step of a
    small model.  Sixteen random bits an element are enough: p is met to 1 / 65536.
    """

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        random = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = random.view(torch.int16)[: x.numel()].view(x.shape)
        kept = bits.ge_(round(65536 * self.p) - 32768)  # in place, 0 and 1: a tensor of bool takes ten times as long
        return x * kept.to(x.dtype).mul_(1 / (1 - self.p))


class Attention(nn.Module):
    """Multi-head attention of queries to a memory."""

    def __init__(self, d_model, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        for linear in (self.qkv, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x, memory=None, pad=None):
        """x: (B, T, D) queries.  memory: (B, S, D), x itself where None.  pad: (B, S), True = ignore."""
        D = x.shape[-1]
        if memory is None:
            q, k, v = self._heads(self.qkv(x), 3)  # (B, H, T, D / H) each
        else:
            # Split and not sliced: the gradient of a slice is written into zeros of the whole.
            (q_weight, kv_weight), (q_bias, kv_bias) = (z.split((D, 2 * D)) for z in (self.qkv.weight, self.qkv.bias))
            (q,) = self._heads(F.linear(x, q_weight, q_bias), 1)  # (B, H, T, D / H)
            k, v = self._heads(F.linear(memory, kv_weight, kv_bias), 2)  # (B, H, S, D / H) each
        mask = None if pad is None else ~pad[:, None, None]  # (B, 1, 1, S)
        attend = plain_attention if x.device.type == "cpu" else F.scaled_dot_product_attention
        attended = attend(q, k, v, mask)  # (B, H, T, D / H)
        return self.out(attended.transpose(1, 2).flatten(2))  # (B, T, D)

    def _heads(self, z, n):
        """z: (B, T, n D) -> n tensors (B, H, T, D / H)."""
        return z.unflatten(-1, (n, self.n_heads, -1)).permute(2, 0, 3, 1, 4)


def plain_attention(q, k, v, mask=None):
    """F.scaled_dot_product_attention as products of whole matrices.

    On a CPU, over the 18 rows that a pattern has, it takes less time than the kernels made for long sequences.
    """
    rows = q.shape[:2]
    q, k, v = (z.flatten(0, 1) for z in (q, k, v))  # (B H, T or S, D / H)
    if mask is None:
        bias, beta = q.new_zeros(()), 0
    else:
        bias, beta = q.new_zeros(mask.shape).masked_fill_(~mask, -torch.inf), 1  # (B, 1, 1, S)
        bias = bias.expand(-1, rows[1], -1, -1).flatten(0, 1)  # (B H, 1, S)
    scores = torch.baddbmm(bias, q, k.mT, beta=beta, alpha=q.shape[-1] ** -0.5)  # (B H, T, S)
    return torch.bmm(scores.softmax(-1), v).unflatten(0, rows)  # (B, H, T, D / H)


class FeedForward(nn.Sequential):
    """Two linear layers with a ReLU between them."""

    def __init__(self, d_model, d_ff, dropout):
        super().__init__(nn.Linear(d_model, d_ff), nn.ReLU(), Dropout(dropout), nn.Linear(d_ff, d_model))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, d_model, n_heads, d_ff, dropout):
        super().__init__()
        self.attention = Attention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x, pad=None, cls_only=False):
        """x: (B, T, D).  pad: (B, T), True = ignore.  cls_only: compute the first of the T rows alone."""
        memory = x if cls_only else None
        x = x[:, :1] if cls_only else x
        x = self.norm1(x + self.dropout(self.attention(x, memory, pad)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))  # (B, T or 1, D)


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention to a memory, feed-forward."""

    def __init__(self, d_model, n_heads, d_ff, dropout):
        super().__init__()
        self.self_attention = Attention(d_model, n_heads)
        self.cross_attention = Attention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(d_model), nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x, memory, memory_pad=None, pad=None, cls_only=False):
        """x: (B, T, D) with pad (B, T), memory: (B, S, D) with memory_pad (B, S); True = ignore, None = nothing.

        cls_only: compute the first of the T rows alone.
        """
        others = x if cls_only else None
        x = x[:, :1] if cls_only else x
        x = self.norm1(x + self.dropout(self.self_attention(x, others, pad)))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory_pad)))
        return self.norm3(x + self.dropout(self.feed_forward(x)))  # (B, T or 1, D)


def recompute_layers(model):
    """Let every layer of a model be computed again in the backward pass, for less memory and a third more time.

    Gradient checkpointing (Chen et al., arXiv 1604.06174); parameters, names and results stay as they are.
    """
    for module in model.modules():
        if isinstance(module, EncoderLayer | DecoderLayer):
            module.forward = functools.partial(checkpoint, module.forward, use_reentrant=False)


def compile_layers(model):
    """Let torch.compile fuse what every layer of a model does between its matrix products.

    For each shape apart, so that results do not depend on the shapes that came before: a resumed run stays bitwise the
    same.  Parameters and names stay as they are; before recompute_layers, where both are wanted.
    """
    torch._dynamo.config.recompile_limit = COMPILED_SHAPES
    for module in model.modules():
        if isinstance(module, EncoderLayer | DecoderLayer):
            module.forward = torch.compile(module.forward, dynamic=False)
