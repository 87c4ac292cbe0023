"""Models: the paper's parameter counts, reference formulas, invariances."""

import dataclasses
import inspect

import numpy as np
import pytest
import torch
from torch import nn

from xxlib.datasets.batches import MODALITIES
from xxlib.diffraction import patterns
from xxlib.models.build import build, guessable
from xxlib.models.config import EncoderConfig, FusionConfig, ModelConfig, ModelError
from xxlib.models.encoders import convolutions, xrd
from xxlib.models.encoders.composition import CompositionEncoder, fraction_encodings
from xxlib.models.fusion import FUSIONS, side_by_side
from xxlib.models.inputs import Composition, Pattern, Tokens
from xxlib.models.layers import DecoderLayer, Dropout, EncoderLayer, plain_attention
from xxlib.models.xxact import count_parameters

TINY_ENCODER = EncoderConfig(d_model=16, n_layers=2, n_heads=2, d_ff=24)
TINY = ModelConfig(
    encoders={"composition": TINY_ENCODER, "xrd": TINY_ENCODER},
    fusion=FusionConfig(n_layers=2, n_heads=3, d_ff=24), d_fused=12, dropout=0.0,
)  # fmt: skip
CONVOLUTIONS = TINY.encoders | {"xrd": dataclasses.replace(TINY_ENCODER, kind="convolutions")}
CONVOLUTIONS = dataclasses.replace(TINY, encoders=CONVOLUTIONS)
FUSED = {
    kind: dataclasses.replace(TINY, fusion=dataclasses.replace(TINY.fusion, kind=kind)) for kind in sorted(FUSIONS)
}
CONCAT = FUSED["concat"]
MODELS = {"composition": TINY.only("composition"), "xrd": TINY.only("xrd"), **FUSED, "convolutions": CONVOLUTIONS}
OF_SUMMARIES = [kind for kind in FUSED if not FUSIONS[kind].keeps_tokens]
WIDTHS = {"e_form": 1, "crystal_system": 7}


def inputs(B=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    element_ids = torch.randint(1, 90, (B, 4), generator=generator)
    fractions = torch.rand(B, 4, generator=generator)
    element_ids[0, 2:], fractions[0, 2:] = 0, 0
    composition = Composition(element_ids, fractions / fractions.sum(1, keepdim=True))
    return {"composition": composition, "xrd": Pattern(torch.rand(B, 17, 250, generator=generator) * 100)}


def changed(batch, name, change):
    """The inputs with each tensor of one modality changed."""
    return batch | {name: type(batch[name])(*(None if x is None else change(x) for x in batch[name]))}


# ---------------------------------------------------------------- the paper's sizes


@pytest.fixture(scope="module")
def paper():
    with torch.device("meta"):
        return build(ModelConfig(), {"e_form": 1})


def test_xrd_encoder_has_the_papers_parameters(paper):
    assert count_parameters(paper.encoders["xrd"]) == 6_840_576


def test_fusion_has_the_papers_parameters(paper):
    assert count_parameters(paper.fusion) == 94_534_656


def test_composition_encoder_is_crabnet_plus_element_vectors_and_cls(paper):
    core_with_projection, element_vectors, cls = 9_954_051, 119 * 200, 512
    assert count_parameters(paper.encoders["composition"]) == core_with_projection + element_vectors + cls == 9_978_363
    assert count_parameters(paper.encoders["composition"].project) == 9_954_051 - 9_560_067


def test_models_and_patterns_agree_on_the_tokens():
    assert (xrd.N_TOKENS, xrd.POINTS_PER_TOKEN) == (patterns.N_TOKENS, patterns.POINTS_PER_TOKEN)
    assert (convolutions.START, convolutions.STEP) == (patterns.START, patterns.STEP)
    coordinate = convolutions.Convolutions(8, 0.0).coordinate.numpy()
    assert coordinate == pytest.approx(2 * np.sin(np.radians(patterns.TWO_THETA / 2)) ** 2, abs=1e-6)


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
    element_ids, fractions, _ = composition = inputs()["composition"]
    encoder(composition)
    table = fraction_encodings(TINY_ENCODER.d_model // 2)
    for b, e in [(0, 0), (0, 1), (1, 3), (2, 2)]:
        f = fractions[b, e].item()
        vector = encoder.embed(encoder.element_vectors.weight[element_ids[b, e]]) * 2**0.7
        log_f = min(1.0, 0.0025 * torch.log2(torch.tensor(f)).item() ** 2)
        linear = table[max(round(f * 5000), 1) - 1] * 2 ** ((1 - 0.2) ** 2)
        logarithmic = table[max(round(log_f * 5000), 1) - 1] * 2 ** ((1 - 1.5) ** 2)
        assert torch.allclose(seen[0][b, 1 + e], vector + torch.cat([linear, logarithmic]), atol=1e-5)
    assert torch.equal(seen[0][:, 0], encoder.cls.expand(3, -1))


# ---------------------------------------------------------------- invariances


@pytest.mark.parametrize("kind", FUSED)
def test_order_of_elements_and_padding_do_not_matter(kind):
    model, batch = build(MODELS[kind], WIDTHS).eval(), inputs()
    expected = model(batch).predictions["e_form"]
    order = torch.tensor([2, 0, 3, 1])
    reordered = changed(batch, "composition", lambda x: x[:, order])
    padded = changed(batch, "composition", lambda x: nn.functional.pad(x, (0, 5)))
    for other in (reordered, padded):
        assert torch.allclose(model(other).predictions["e_form"], expected, atol=1e-5)


@pytest.mark.parametrize("kind", FUSED)
@pytest.mark.parametrize("query", MODALITIES)
def test_a_crystal_does_not_see_its_batch(query, kind):
    """Whatever asks: the elements of one crystal are padded to as many as another one has."""
    (memory,) = set(MODALITIES) - {query}
    fusion = dataclasses.replace(TINY.fusion, query=query, memory=(memory,), kind=kind)
    model, batch = build(dataclasses.replace(TINY, fusion=fusion), WIDTHS).eval(), inputs()
    together = model(batch).predictions["crystal_system"]
    alone = changed(changed(batch, "xrd", lambda x: x[:1]), "composition", lambda x: x[:1, :2])
    assert torch.allclose(together[:1], model(alone).predictions["crystal_system"], atol=1e-5)


def test_a_decoder_layer_ignores_the_padding_of_its_queries():
    layer = DecoderLayer(16, 4, 32, 0.0)
    x, memory, pad = torch.randn(1, 5, 16), torch.randn(1, 3, 16), torch.tensor([[False] * 3 + [True] * 2])
    alone, beside = layer(x[:, :3], memory), layer(x, memory, None, pad)
    assert torch.allclose(alone, beside[:, :3], atol=1e-6)
    assert not torch.allclose(alone, layer(x, memory)[:, :3], atol=1e-3), "without it the padding leaks"


@pytest.mark.parametrize("name", MODELS)
def test_only_the_modalities_asked_for_are_read(name):
    model, batch = build(MODELS[name], WIDTHS).eval(), inputs()
    before = model(batch)
    assert before.predictions["e_form"].shape == (3,) and before.predictions["crystal_system"].shape == (3, 7)
    assert set(before.encoded) == set(MODELS[name].modalities)
    for modality in MODALITIES:
        after = model(changed(batch, modality, lambda x: x.flip(0))).predictions["e_form"]
        assert torch.equal(after, before.predictions["e_form"]) == (modality not in MODELS[name].modalities)


@pytest.mark.parametrize("name", MODELS)
def test_cls_alone_equals_the_first_of_all_rows(name):
    model, batch = build(MODELS[name], WIDTHS).eval(), inputs()
    with torch.no_grad():
        short, long = model(batch), model(batch, tokens=True)
    assert torch.allclose(short.fused.x[:, 0], long.fused.x[:, 0], atol=1e-6)
    rows = {"composition": 5, **dict.fromkeys(OF_SUMMARIES, 1)}.get(name, 18)
    assert short.fused.x.shape[1] == 1 and long.fused.x.shape[1] == rows
    for modality, vector in zip(MODALITIES, build(TINY, {}).eval().summaries(batch, tuple(MODALITIES))):
        assert vector.shape == (3, 12), modality


def test_the_tokens_of_several_modalities_are_one_memory():
    short, long = Tokens(torch.randn(2, 3, 4)), Tokens(torch.randn(2, 2, 4), torch.tensor([[False, True]] * 2))
    x, pad = side_by_side([short, long])
    assert x.shape == (2, 5, 4) and pad.tolist() == [[False, False, False, False, True]] * 2
    assert side_by_side([short]) is short


HALF = {"composition": torch.tensor([True, True, False]), "xrd": torch.tensor([True, False, True])}


@pytest.mark.parametrize("kind", ["concat", "late", "gated", "experts"])
def test_what_a_sample_does_not_have_is_left_out(kind):
    model, batch = build(FUSED[kind], WIDTHS).eval(), inputs()
    expected, *others = (
        model(b, HALF).predictions["e_form"]
        for b in (batch, *(changed(batch, name, lambda x: x.roll(1, 0)) for name in MODALITIES))
    )
    assert expected.isfinite().all()
    for name, other in zip(MODALITIES, others):
        assert torch.equal(expected == other, ~HALF[name]), name


@pytest.mark.parametrize("kind", FUSED)
def test_every_fusion_answers_and_learns_where_a_modality_is_missing(kind):
    """Also where a sample has nothing at all, and under mixed precision; every weight of the fusion can learn."""
    model, batch = build(FUSED[kind], WIDTHS, partial=True), inputs()
    absent = {name: ~has for name, has in HALF.items()}
    absent["xrd"][2] = True  # which then has neither
    batch = {name: one.without(absent[name]) for name, one in batch.items()}
    given = {name: ~which for name, which in absent.items()}
    for training in (False, True):
        with torch.autocast("cpu", torch.bfloat16):
            low = model.train(training)(batch, given)
        output = model(batch, given)
        assert low.predictions["e_form"].isfinite().all() and output.predictions["e_form"].isfinite().all()
    output.predictions["crystal_system"].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.fusion.parameters())


def test_late_fusion_is_the_mean_of_what_each_modality_says_alone():
    model, batch = build(FUSED["late"], {"e_form": 2, "crystal_system": 7}).eval(), inputs()
    everyone = torch.ones(3, dtype=torch.bool)
    both, *alone = (
        model(batch, {name: everyone if name in given else ~everyone for name in MODALITIES})
        for given in (MODALITIES, MODALITIES[:1], MODALITIES[1:])
    )
    assert count_parameters(model.fusion) == 0 and both.weights.tolist() == [[0.5, 0.5]] * 3
    for name, said in both.predictions.items():
        assert torch.allclose(said, sum(one.predictions[name] for one in alone) / 2, atol=1e-6)
    assert torch.allclose(both.log_std["e_form"], sum(one.log_std["e_form"] for one in alone) / 2, atol=1e-6)


def test_a_gate_shares_out_what_a_sample_has():
    """At first alike, then as it has learned; never anything to what is missing."""
    model, batch = build(FUSED["gated"], WIDTHS).eval(), inputs()
    assert model(batch).weights.tolist() == [[0.5, 0.5]] * 3
    with torch.no_grad():
        model.fusion.gate.weight.normal_()
    weights = model(batch, HALF).weights
    assert torch.equal(weights > 0, torch.stack([HALF["xrd"], HALF["composition"]], dim=1)), "the query first"
    assert torch.allclose(weights.sum(1), torch.ones(3)) and not torch.allclose(weights[0, 0], weights[0, 1])
    assert len(set(model(batch).weights[:, 0].tolist())) == 3, "a gate of each sample"


def test_experts_are_chosen_by_the_noisy_gate():
    """n_chosen of them count, by the softmax of their scores; noise in training alone."""
    model, batch = build(FUSED["experts"], WIDTHS).eval(), inputs(B=64)
    assert not model.fusion.gate.weight.any() and not model.fusion.noise.weight.any(), "the noise alone chooses"
    model.fusion.gate.weight.data.normal_()
    seen = []
    model.fusion.gate.register_forward_hook(lambda module, arguments, scores: seen.append(scores))
    weights = model(batch).weights
    assert torch.equal(weights, model(batch).weights) and weights.shape == (64, 4)
    best = seen[0].sort(dim=1, descending=True).values[:, :2]
    expected = torch.where(seen[0] >= best[:, 1:], seen[0].exp(), 0)
    assert torch.allclose(weights, expected / expected.sum(1, keepdim=True), atol=1e-6)
    model.train()
    assert not torch.equal(model(batch).weights, weights) and (model(batch).weights > 0).sum(1).eq(2).all()
    model.fusion.gate.weight.data.zero_()
    assert (model(batch).weights > 0).sum(0).gt(16).all(), "the noise uses all of them"


def test_one_expert_is_concat():
    one = dataclasses.replace(FUSED["experts"].fusion, n_experts=1, n_chosen=1)
    experts, concat = (build(config, WIDTHS).eval() for config in (dataclasses.replace(TINY, fusion=one), CONCAT))
    state = {name.replace("experts.0.", "layers."): x for name, x in experts.state_dict().items()}
    concat.load_state_dict({name: x for name, x in state.items() if name in concat.state_dict()})
    said = [model(inputs()).predictions["crystal_system"] for model in (experts, concat)]
    assert torch.allclose(*said, atol=1e-6)


def test_mutual_attention_is_cross_attention_of_each_to_the_others():
    model, batch = build(FUSED["mutual_attention"], WIDTHS).eval(), inputs()
    output, cls = model(batch, HALF), []
    for query, memory in (("xrd", "composition"), ("composition", "xrd")):
        fusion = dataclasses.replace(TINY.fusion, query=query, memory=(memory,))
        alone = build(dataclasses.replace(TINY, fusion=fusion), WIDTHS).eval().fusion
        alone.load_state_dict(model.fusion.asking[query].state_dict())
        cls.append(alone(output.encoded)[0].x[:, 0])
    assert torch.allclose(output.fused.x[:, 0], model.fusion.join(torch.cat(cls, dim=1)), atol=1e-6)
    twice = 2 * count_parameters(build(TINY, {}).fusion)
    assert count_parameters(model.fusion) == twice + count_parameters(model.fusion.join)


def test_experts_that_cannot_be_chosen_are_refused():
    for values in ({"n_experts": 0}, {"n_experts": 1_000_000}, {"n_chosen": 0}, {"n_chosen": 5}):
        with pytest.raises(ModelError, match=next(iter(values))):
            dataclasses.replace(TINY, fusion=dataclasses.replace(FUSED["experts"].fusion, **values))


class LargestFusion(nn.Module):
    """What a new way to fuse costs: a class, and its name among FUSIONS."""

    keeps_tokens = False

    def __init__(self, config, d_model, dropout):
        super().__init__()
        self.names = (config.query, *config.memory)
        self.join = nn.Linear(d_model, d_model)

    def forward(self, encoded, given=None, cls_only=False):
        cls = torch.stack([encoded[name].x[:, 0] for name in self.names], dim=1)  # (B, M, D)
        return Tokens(self.join(cls.amax(1, keepdim=True))), None


def test_a_new_fusion_is_a_dozen_lines_in_one_place(monkeypatch):
    monkeypatch.setitem(FUSIONS, "largest", LargestFusion)
    model = build(dataclasses.replace(TINY, fusion=dataclasses.replace(TINY.fusion, kind="largest")), WIDTHS)
    model(inputs()).predictions["e_form"].sum().backward()
    assert all(p.grad is not None for p in model.fusion.parameters())
    lines = inspect.getsource(LargestFusion).splitlines()
    assert sum(bool(line.strip()) and not line.strip().startswith(('"""', "class")) for line in lines) <= 12


def test_a_silent_fusion_hands_on_what_the_query_says():
    """At first it is the CLS of the query, normalised, whatever the composition; and it learns from the first step."""
    model = build(dataclasses.replace(TINY, fusion=dataclasses.replace(TINY.fusion, silent=True)), WIDTHS).eval()
    batch = inputs()
    out = model(batch)
    cls = out.encoded["xrd"].x[:, :1]
    assert torch.allclose(out.fused.x, torch.nn.functional.layer_norm(cls, cls.shape[-1:]), atol=1e-3)
    other = changed(batch, "composition", torch.clone)
    other["composition"].element_ids[:, 0] = 8
    assert torch.equal(model(other).fused.x, out.fused.x)
    out.predictions["e_form"].sum().backward()
    assert all(layer.cross_attention.out.weight.grad.abs().sum() > 0 for layer in model.fusion.layers)


# ---------------------------------------------------------------- hidden tokens


def test_hidden_elements_are_not_seen_and_their_mask_is_learned():
    model = build(TINY.only("composition"), {}, masked=("composition",)).eval()
    batch, hidden = inputs(), torch.zeros(3, 4, dtype=torch.bool)
    hidden[:, 1] = True
    guess = model.guess["composition"](model(batch_hidden(batch, hidden), tokens=True).fused.x[:, 1:])
    other = changed(batch, "composition", torch.clone)
    other["composition"].element_ids[:, 1] = 8
    again = model.guess["composition"](model(batch_hidden(other, hidden), tokens=True).fused.x[:, 1:])
    assert guess.shape == (3, 4, 119) and torch.equal(guess, again)
    guess.sum().backward()
    assert model.encoders["composition"].mask.grad.abs().sum() > 0


def batch_hidden(batch, hidden):
    return batch | {"composition": batch["composition"].hide(hidden)}


@pytest.mark.parametrize("kind", ["transformer", "convolutions"])
def test_what_a_pattern_holds_where_it_is_hidden_is_not_seen(kind):
    """Without a [MASK] it is what it holds; the mask is learned, and all tokens may be hidden."""
    encoder = dataclasses.replace(TINY_ENCODER, kind=kind)
    config = dataclasses.replace(TINY, encoders={"xrd": encoder}, fusion=None)
    model = build(config, WIDTHS, partial=True)
    plain = build(config, WIDTHS)
    plain.load_state_dict({name: x for name, x in model.state_dict().items() if not name.endswith(".mask")})
    batch = inputs()["xrd"]
    hidden = torch.zeros(3, 17, dtype=torch.bool)
    hidden[0, 5], hidden[1, :] = True, True
    other = batch._replace(tokens=torch.where(hidden[..., None], 50.0, batch.tokens))
    said = [model({"xrd": one.hide(hidden)}).fused.x[:, 0] for one in (batch, other)]
    assert torch.equal(*said)
    assert not torch.allclose(said[0][:2], model({"xrd": batch}).fused.x[:2, 0], atol=1e-3)
    seen = [plain({"xrd": one.hide(hidden)}).fused.x[:, 0] for one in (batch, other)]
    assert torch.equal(seen[0][2], seen[1][2]) and not torch.allclose(seen[0][:2], seen[1][:2], atol=1e-3)
    said[0].sum().backward()
    path = Pattern(torch.zeros(1, 17, 250, requires_grad=True))  # where integrated gradients begin
    plain({"xrd": path}).fused.x.sum().backward()
    assert path.tokens.grad.isfinite().all() and path.tokens.grad.any()
    assert model.encoders["xrd"].mask.grad.abs().sum() > 0


def test_a_column_of_the_convolutions_sees_its_token_and_its_neighbours():
    """A line in a token changes that column, and none that is ten degrees and more away."""
    torch.manual_seed(0)
    stem = convolutions.Convolutions(8, 0.0).eval()
    tokens = torch.zeros(2, 17, 250)
    tokens[1, 8, 120:130] = 100
    with torch.no_grad():
        without, with_line = stem(tokens)
    change = (with_line - without).abs().amax(-1)
    assert change[8] > 0.01
    reach = torch.arange(17)[change > 1e-6]
    assert reach.min() >= 5 and reach.max() <= 11


def test_what_comes_out_of_a_model_can_be_guessed():
    both = dataclasses.replace(TINY.fusion, query="composition", memory=("xrd",))
    assert guessable(TINY) == ("xrd",) and guessable(dataclasses.replace(TINY, fusion=both)) == ("composition",)
    assert guessable(TINY.only("composition")) == ("composition",) and guessable(CONCAT) == ()
    assert guessable(dataclasses.replace(TINY, architecture="fcn_mlp", fusion=None)) == ()


def test_dropout_drops_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    dropout, x = Dropout(0.1).train(), torch.ones(1_000_003)
    y = dropout(x)
    dropped = (y == 0).float().mean().item()
    assert abs(dropped - 0.1) < 0.002 and abs(y.mean().item() - 1) < 0.002
    assert torch.equal(Dropout(0.1).eval()(x), x)
    torch.manual_seed(0)
    assert torch.equal(dropout(x), y)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoders": {"smell": TINY_ENCODER}}, "encoders of smell: choose from composition, xrd"),
        ({"encoders": {}}, "encoders of nothing"),
        ({"d_fused": 100}, "multiple of the fusion's n_heads"),
        ({"encoders": {"composition": EncoderConfig(d_model=30), "xrd": TINY_ENCODER}}, "encoder of composition"),
        ({"encoders": {"xrd": TINY_ENCODER}}, "a fusion of xrd and composition, but the model reads xrd"),
        (
            {"encoders": CONVOLUTIONS.encoders | {"composition": CONVOLUTIONS.encoders["xrd"]}},
            "encoder of composition: kind 'convolutions', choose from transformer",
        ),
        ({"fusion": FusionConfig(kind="hope")}, "choose from cross_attention, mutual_attention, concat, late"),
        ({"element_vectors": "word2vec"}, "choose from learned, mat2vec"),
        ({"element_vectors": "mat2vec", "encoders": {"xrd": TINY_ENCODER}, "fusion": None}, "reads no composition"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_in_one_line(changes, words):
    with pytest.raises(ModelError, match=words) as error:
        dataclasses.replace(TINY, **changes)
    assert "\n" not in str(error.value)
