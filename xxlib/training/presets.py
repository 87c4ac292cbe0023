"""Runs to begin with, by size; RunConfig.but changes what another run has otherwise."""

from xxlib.models.config import EncoderConfig, FusionConfig, ModelConfig
from xxlib.training.config import Budget, Data, Objectives, RunConfig


def _sizes(d_model, composition_d_ff, xrd_d_ff, fusion_layers, fusion_d_ff, n_layers=3):
    """A small XxaCT-NN: of one width throughout."""
    return ModelConfig(
        encoders={
            "composition": EncoderConfig(d_model=d_model, n_layers=n_layers, d_ff=composition_d_ff),
            "xrd": EncoderConfig(d_model=d_model, n_layers=n_layers, d_ff=xrd_d_ff),
        },
        fusion=FusionConfig(n_layers=fusion_layers, n_heads=4, d_ff=fusion_d_ff),
        d_fused=d_model,
    )


PRESETS = {
    # The embedded dataset on a laptop, to see that everything runs: about 10 s on 2 cores.
    "smoke": RunConfig(
        name="smoke",
        preset="smoke",
        data=Data(dataset="data/demo"),
        budget=Budget(batch_size=64, n_steps=200, learning_rate=1e-3),
        model=_sizes(64, composition_d_ff=128, xrd_d_ff=128, fusion_layers=2, fusion_d_ff=128, n_layers=2),
    ),
    # Materials Project crystals without a GPU: about 25 minutes on 2 cores for both modalities.
    "small": RunConfig(
        name="small",
        preset="small",
        data=Data(dataset="data/mp36k"),
        budget=Budget(batch_size=128, n_steps=8000, learning_rate=1e-3),
        model=_sizes(128, composition_d_ff=512, xrd_d_ff=256, fusion_layers=3, fusion_d_ff=256),
    ),
    # What pays for energies (notebooks/study/leads.py): the sizes of `small`, by likelihood.  Half of its steps are
    # enough for an encoder of compositions that has learned from formulas before: give that run as `initial`.
    "plus": RunConfig(
        name="plus",
        preset="plus",
        data=Data(dataset="data/mp36k"),
        objectives=Objectives(targets=("e_form",), likelihood=True),
        budget=Budget(batch_size=128, n_steps=4000, learning_rate=3e-4),
        model=_sizes(128, composition_d_ff=512, xrd_d_ff=256, fusion_layers=3, fusion_d_ff=256),
    ),
    # Energies of the Materials Project from the crystal structure alone, which prepare --structure has stored: about an
    # hour on a core.  Small batches and edges that are updated pay (notebooks/study/structures.py).
    "structure": RunConfig(
        name="structure",
        preset="structure",
        data=Data(dataset="data/mp36k"),
        budget=Budget(batch_size=32, n_steps=32000, learning_rate=2e-3),
        model=ModelConfig(
            encoders={"structure": EncoderConfig(kind="edge_updates", d_model=64)},
            fusion=None,
            d_fused=128,
            dropout=0.0,
        ),
    ),
    # The paper's model, with the recipe scaled to 27,833 training crystals; for one large GPU.
    "paper": RunConfig(
        name="paper",
        preset="paper",
        data=Data(dataset="data/mp36k"),
        budget=Budget(batch_size=512, n_steps=4000, learning_rate=1e-4, precision="bf16"),
    ),
}
