"""The latent space: what a model's CLS vectors say of crystals, in two dimensions, in scores and in neighbours."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_samples
from sklearn.neighbors import NearestNeighbors

from xxlib.answering.inference import load_trained
from xxlib.crystals.crystal import CRYSTAL_SYSTEMS
from xxlib.training.embeddings import embeddings
from xxlib.training.examples import examples_of

SPACES = ["all dimensions", "2-D PCA"]  # of silhouettes
SILHOUETTE_CRYSTALS = 5000  # the score takes the distance of every pair


def of_run(folder, split="test"):
    """The CLS vectors that the heads of a finished run read of a split (n, D), its Dataset and their rows (n,).

    folder: of the run, with its model.safetensors.  Raises CheckpointError where that is missing or damaged.
    """
    model, config, _ = load_trained(Path(folder) / "model.safetensors")
    examples = examples_of(config)
    rows = examples.rows[split]
    return embeddings(model, examples.dataset, rows, config.model.modalities)["fused"], examples.dataset, rows


def describe(folder):
    """Leave in the folder of a finished run what Table 5 and Figure 2 need of its `test`, without its weights.

    latent.parquet: id, "PC 1" and "PC 2" of each crystal and the columns of silhouettes(); the share of the variance of
    both components is attrs["variance"] of the DataFrame that pandas reads.
    """
    vectors, dataset, rows = of_run(folder)
    points, shares = principal_components(vectors)
    table = pd.DataFrame({"id": np.asarray(dataset.column("id")[rows])})
    table[["PC 1", "PC 2"]] = points.astype(np.float32)
    systems = np.asarray(dataset.column("crystal_system")[rows])
    table = table.join(silhouettes(vectors, systems).astype(np.float32))
    table.attrs["variance"] = shares.tolist()
    table.to_parquet(Path(folder) / "latent.parquet", compression="zstd")


def principal_components(vectors):
    """The first two principal components of vectors (n, D): (n, 2), and the share of the variance of each (2,)."""
    pca = PCA(2, svd_solver="full").fit(vectors)
    return pca.transform(vectors), pca.explained_variance_ratio_


def umap(vectors, seed=0):
    """Two dimensions that keep neighbours together (UMAP, McInnes et al. 2018) of vectors (n, D): (n, 2), unitless."""
    try:
        from umap import UMAP
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("UMAP needs umap-learn: pip install -e '.[umap]'") from error
    return UMAP(random_state=seed, n_jobs=1).fit_transform(vectors)


def silhouettes(vectors, systems, seed=0):
    """How much nearer each crystal is to its own crystal system than to the next: scores from -1 to 1, euclidean.

    vectors: (n, D).  systems: (n,) of CRYSTAL_SYSTEMS.  One row a crystal; the columns are its scores in all D
    dimensions and in the first two principal components.  Of more than 5,000 crystals a seeded sample has scores, and
    the components are those of the sample.  Raises ValueError where fewer than two systems are there.
    """
    systems = np.asarray(systems)
    chosen = np.arange(len(systems))
    if len(systems) > SILHOUETTE_CRYSTALS:
        chosen = np.random.default_rng(seed).choice(len(systems), SILHOUETTE_CRYSTALS, replace=False)
    vectors, there = vectors[chosen], systems[chosen]
    if len(set(there)) < 2:
        raise ValueError(f"silhouette scores compare crystal systems; here are {', '.join(set(there)) or 'none'}")
    spaces = (vectors, principal_components(vectors)[0])
    scores = [silhouette_samples(space, there) for space in spaces]
    return pd.DataFrame(dict(zip(SPACES, scores)), index=chosen).reindex(range(len(systems)))


def mean_silhouettes(table):
    """Silhouettes of each crystal system, of their mean, and the number of crystals: one row a system and "mean".

    table: as archive.latent has it.  The mean is over systems, so that a common one does not outweigh a rare one.
    """
    scores = table.dropna(subset=SPACES).groupby("crystal_system")[SPACES]
    means = scores.mean().assign(crystals=scores.size())
    means = means.reindex([system for system in CRYSTAL_SYSTEMS if system in means.index])
    means.loc["mean"] = [*means[SPACES].mean(), means["crystals"].sum()]
    return means.astype({"crystals": int}).rename_axis("crystal system")


def difference(before, after):
    """How much the mean silhouette of one model (all dimensions) exceeds another's, and its standard error.

    before, after: as archive.latent has them, of the same crystals, of which the standard error is.
    """
    pairs = before.merge(after, on=["id", "crystal_system"])
    change = (pairs["all dimensions_y"] - pairs["all dimensions_x"]).groupby(pairs["crystal_system"])
    return change.mean().mean(), np.sqrt(change.sem().pow(2).sum()) / change.ngroups


def neighbours(vectors, dataset, rows, material, n=10):
    """The n crystals whose vectors are nearest to that of one material: a table, the material itself first.

    vectors: (k, D) of the `rows` (k,) of a Dataset.  material: an id, or a formula, of which the first crystal counts.
    Distances are euclidean, in units of the embedding.  Raises ValueError where the material is not among the rows.
    """
    rows = np.asarray(rows)
    ids, formulas = (dataset.column(name)[rows] for name in ("id", "formula"))
    place = np.flatnonzero((ids == material) | (formulas == material))[:1]
    if not len(place):
        raise ValueError(
            f"none of the {len(rows)} crystals that have an embedding has the id or formula {material!r}; "
            f"ids are like {ids[0]}, formulas like {formulas[0]}"
        )
    search = NearestNeighbors(n_neighbors=min(n + 1, len(rows))).fit(vectors)
    distances, nearest = (values[0] for values in search.kneighbors(vectors[place]))
    others = nearest != place[0]
    nearest = np.concatenate([place, nearest[others][:n]])
    distances = np.concatenate([[0.0], distances[others][:n]])
    return pd.DataFrame(
        {
            "id": ids[nearest],
            "formula": formulas[nearest],
            "crystal system": dataset.column("crystal_system")[rows[nearest]],
            "formation energy (eV/atom)": dataset.labels["e_form"][rows[nearest]],
            "band gap (eV)": dataset.labels["band_gap"][rows[nearest]],
            "distance": distances,
        }
    )
