"""Models: the paper's parameter counts, reference formulas, invariances."""

import dataclasses

import pytest
import torch
from torch import nn

from xxlib.diffraction import patterns
from xxlib.models import encoders
from xxlib.models.config import ModelConfig
from xxlib.models.encoders import CompositionEncoder, XRDEncoder, fraction_encodings
from xxlib.models.fusion import CrossAttentionFusion
from xxlib.models.layers import DecoderLayer, Dropout, EncoderLayer, plain_attention
from xxlib.models.xxact import build, count_parameters

TINY = ModelConfig(
    d_model=16, n_layers=2, n_heads=2, composition_d_ff=24, xrd_d_ff=24, d_fused=12, fusion_layers=2, fusion_heads=3,
    fusion_d_ff=24, dropout=0.0,
)  # fmt: skip
WIDTHS = {"e_form": 1, "crystal_system": 7}


def inputs(B=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    element_ids = torch.randint(1, 90, (B, 4), generator=generator)
    fractions = torch.rand(B, 4, generator=generator)
    element_ids[0, 2:], fractions[0, 2:] = 0, 0
    return element_ids, fractions / fractions.sum(1, keepdim=True), torch.rand(B, 17, 250, generator=generator) * 100


# ---------------------------------------------------------------- the paper's sizes


@pytest.fixture(scope="module")
def paper():
    with torch.device("meta"):
        return build(ModelConfig(), {"e_form": 1})


def test_xrd_encoder_has_the_papers_parameters(paper):
    assert count_parameters(paper.xrd_encoder) == 6_840_576


def test_fusion_has_the_papers_parameters(paper):
    assert count_parameters(paper.fusion) == 94_534_656


def test_composition_encoder_is_crabnet_plus_element_vectors_and_cls(paper):
    core_with_projection, element_vectors, cls = 9_954_051, 119 * 200, 512
    assert count_parameters(paper.composition_encoder) == core_with_projection + element_vectors + cls
    assert count_parameters(paper.composition_encoder.project) == 9_954_051 - 9_560_067


def test_models_and_patterns_agree_on_the_tokens():
    assert (encoders.N_TOKENS, encoders.POINTS_PER_TOKEN) == (patterns.N_TOKENS, patterns.POINTS_PER_TOKEN)


# ---------------------------------------------------------------- reference: nn.Transformer, CrabNet


def test_encoder_layer_is_torchs_with_the_same_weights():
    ours, theirs = EncoderLayer(16, 4, 32, 0.0), nn.TransformerEncoderLayer(16, 4, 32, 0.0, batch_first=True)
    names = {"self_attn.in_proj_weight": "attention.qkv.weight", "self_attn.in_proj_bias": "attention.qkv.bias",
             "self_attn.out_proj.weight": "attention.out.weight", "self_attn.out_proj.bias": "attention.out.bias",
             "linear1.weight": "feed_forward.0.weight", "linear1.bias": "feed_forward.0.bias",
             "linear2.weight": "feed_forward.3.weight", "linear2.bias": "feed_forward.3.bias"}  # fmt: skip
    ours.load_state_dict({names.get(name, name): tensor for name, tensor in theirs.state_dict().items()})
    x, pad = torch.randn(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    expected = theirs(x, src_key_padding_mask=pad)
    assert torch.allclose(ours(x, pad)[~pad], expected[~pad], atol=1e-6)


def test_decoder_layer_is_torchs_with_the_same_weights():
    ours, theirs = DecoderLayer(16, 4, 32, 0.0), nn.TransformerDecoderLayer(16, 4, 32, 0.0, batch_first=True)
    names = {"linear1": "feed_forward.0", "linear2": "feed_forward.3"}
    for torchs, own in (("self_attn", "self_attention"), ("multihead_attn", "cross_attention")):
        names |= {f"{torchs}.in_proj_": f"{own}.qkv.", f"{torchs}.out_proj": f"{own}.out"}
    state = {}
    for name, tensor in theirs.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = tensor
    ours.load_state_dict(state)
    x, memory = torch.randn(2, 5, 16), torch.randn(2, 4, 16)
    pad = torch.tensor([[False] * 4, [False, False, True, True]])
    assert torch.allclose(ours(x, memory, pad), theirs(x, memory, memory_key_padding_mask=pad), atol=1e-6)


@pytest.mark.parametrize("padded", [False, True])
def test_attention_on_a_cpu_is_torchs(padded):
    """A GPU takes torch's own kernel: both must say the same."""
    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4, 8)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])[:, None, None] if padded else None
    expected = nn.functional.scaled_dot_product_attention(q, k, v, mask)
    assert torch.allclose(plain_attention(q, k, v, mask), expected, atol=1e-6)


def test_fraction_encodings_are_crabnets():
    # CrabNet's FractionalEncoder, written as in its paper's code: d = half the width, alternating sine and cosine.
    d, resolution = 8, 5000
    x = torch.arange(resolution, dtype=torch.float64).view(-1, 1)
    k = torch.arange(d, dtype=torch.float64).view(1, -1).repeat(resolution, 1)
    expected = torch.zeros(resolution, d, dtype=torch.float64)
    expected[:, 0::2] = torch.sin(x / torch.pow(50, 2 * k[:, 0::2] / d))
    expected[:, 1::2] = torch.cos(x / torch.pow(50, 2 * k[:, 1::2] / d))
    assert torch.allclose(fraction_encodings(d).double(), expected, atol=1e-6)


def test_composition_encoder_is_crabnets_formula():
    """Everything before the layers, element by element, against the formula; and the CLS without an encoding."""
    encoder = CompositionEncoder(TINY)
    with torch.no_grad():
        encoder.element_scaler.fill_(0.7), encoder.fraction_scaler.fill_(0.2), encoder.log_fraction_scaler.fill_(1.5)
    seen = []
    encoder.layers[0].register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    element_ids, fractions, _ = inputs()
    encoder(element_ids, fractions)
    table = fraction_encodings(TINY.d_model // 2)
    for b, e in [(0, 0), (0, 1), (1, 3), (2, 2)]:
        f = fractions[b, e].item()
        vector = encoder.embed(encoder.element_vectors.weight[element_ids[b, e]]) * 2**0.7
        log_f = min(1.0, 0.0025 * torch.log2(torch.tensor(f)).item() ** 2)
        linear = table[max(round(f * 5000), 1) - 1] * 2 ** ((1 - 0.2) ** 2)
        logarithmic = table[max(round(log_f * 5000), 1) - 1] * 2 ** ((1 - 1.5) ** 2)
        assert torch.allclose(seen[0][b, 1 + e], vector + torch.cat([linear, logarithmic]), atol=1e-5)
    assert torch.equal(seen[0][:, 0], encoder.cls.expand(3, -1))


# ---------------------------------------------------------------- invariances


def test_order_of_elements_and_padding_do_not_matter():
    model = build(TINY, WIDTHS).eval()
    element_ids, fractions, tokens = inputs()
    expected = model(element_ids, fractions, tokens).predictions["e_form"]
    order = torch.tensor([2, 0, 3, 1])
    reordered = model(element_ids[:, order], fractions[:, order], tokens).predictions["e_form"]
    padded = model(*(nn.functional.pad(x, (0, 5)) for x in (element_ids, fractions)), tokens).predictions["e_form"]
    assert torch.allclose(reordered, expected, atol=1e-5) and torch.allclose(padded, expected, atol=1e-5)


def test_a_crystal_does_not_see_its_batch():
    model = build(TINY, WIDTHS).eval()
    element_ids, fractions, tokens = inputs()
    together = model(element_ids, fractions, tokens).predictions["crystal_system"]
    alone = model(element_ids[1:2], fractions[1:2], tokens[1:2]).predictions["crystal_system"]
    assert torch.allclose(together[1:2], alone, atol=1e-5)


@pytest.mark.parametrize("modalities", [("composition",), ("xrd",), ("composition", "xrd")])
def test_only_the_modalities_asked_for_are_read(modalities):
    model = build(dataclasses.replace(TINY, modalities=modalities), WIDTHS).eval()
    element_ids, fractions, tokens = inputs()
    before = model(element_ids, fractions, tokens).predictions
    assert before["e_form"].shape == (3,) and before["crystal_system"].shape == (3, 7)
    other_tokens = model(element_ids, fractions, tokens.flip(0)).predictions["e_form"]
    other_elements = model(element_ids.flip(0), fractions.flip(0), tokens).predictions["e_form"]
    assert torch.equal(other_tokens, before["e_form"]) == ("xrd" not in modalities)
    assert torch.equal(other_elements, before["e_form"]) == ("composition" not in modalities)


def test_cls_alone_equals_the_first_of_all_rows():
    element_ids, fractions, tokens = inputs()
    xrd, composition, fusion = XRDEncoder(TINY), CompositionEncoder(TINY), CrossAttentionFusion(TINY)
    patterns_, (elements, pad) = xrd(tokens), composition(element_ids, fractions)
    assert torch.allclose(xrd(tokens, cls_only=True), patterns_[:, :1], atol=1e-6)
    assert torch.allclose(composition(element_ids, fractions, cls_only=True)[0], elements[:, :1], atol=1e-6)
    assert torch.allclose(
        fusion(patterns_, elements, pad, cls_only=True), fusion(patterns_, elements, pad)[:, :1], atol=1e-6
    )


def test_dropout_drops_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    dropout, x = Dropout(0.1).train(), torch.ones(1_000_003)
    y = dropout(x)
    dropped = (y == 0).float().mean().item()
    assert abs(dropped - 0.1) < 0.002 and abs(y.mean().item() - 1) < 0.002
    assert torch.equal(Dropout(0.1).eval()(x), x)
    torch.manual_seed(0)
    assert torch.equal(dropout(x), y)


def test_a_size_that_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="modalities"):
        ModelConfig(modalities=("smell",))
    with pytest.raises(ValueError, match="multiple"):
        ModelConfig(d_fused=100, fusion_heads=12)
