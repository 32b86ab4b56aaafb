"""Scores of codes against factors in the forms of their papers. Outliers and maps of a latent can move them."""

import numpy as np
from scipy import special

from kvae.evaluation import factor_scores
from kvae.evaluation.factor_information import Column

_BINS = 20  # of equal width
_MOST_VALUES, _ROWS = 100, 5  # a number with more values, or less rows for each, is cut into bins
_MOST = 10_000  # rows that an estimator reads
_VOTES, _VARIANCE_ROWS, _PAIRS = 800, 200, 64
_NEIGHBORS, _RANGE = 10, 1 / 20  # of InfoMEC; latents of a smaller share of the largest range are left out
_TREES = 10


def published_scores(columns: list[Column], z: np.ndarray, active: np.ndarray, seed: int) -> dict[str, float]:
    """{name: score}, with the names of `factor_scores`.

    MIG: Chen et al. 2018, with the histograms of Locatello et al. 2019. DCI: Eastwood and Williams 2018, by random
    forests. SAP: Kumar et al. 2018. FactorVAE: Kim and Mnih 2018. beta-VAE: Higgins et al. 2017. Modularity and
    explicitness: Ridgeway and Mozer 2018. InfoMEC: Hsu et al. 2023. Values of periodic factors are numbers here.
    """
    rng = np.random.default_rng(seed)
    values = [column.values for column in columns]
    labels = [_labels(column) for column in columns]
    scores: dict[str, float] = {}
    information, entropies = histogram_information(labels, z)
    scores["MIG"] = factor_scores.gap(information / entropies[:, None])
    scores["modularity"] = _modularity(information)
    rows = rng.permutation(len(z))[:_MOST]
    z, values, labels = z[rows], [each[rows] for each in values], [each[rows] for each in labels]
    columns = [column.take(rows) for column in columns]
    importance, informativeness = _forests(columns, values, z, seed)
    scores["DCI disentanglement"] = factor_scores.dci_disentanglement(importance)
    scores["DCI completeness"] = factor_scores.dci_completeness(importance)
    scores["DCI informativeness"] = informativeness
    scores["SAP"] = factor_scores.gap(separation(columns, values, z))
    scores |= _votes(columns, z[:, active], rng)
    scores["explicitness"] = float(np.mean([_explicitness(label, z) for label in labels]))
    scores |= _infomec(labels, z, seed)
    return scores


def _labels(column):
    """Class numbers (n,): the values, or 20 bins of equal width of many."""
    distinct, index = np.unique(column.values, return_inverse=True)
    few = len(distinct) <= min(_MOST_VALUES, len(index) // _ROWS)
    return index if few or column.factor.kind == "categorical" else equal_width(column.values)


def equal_width(values: np.ndarray) -> np.ndarray:
    """The numbers of 20 bins of equal width, (n,)."""
    return np.digitize(values, np.histogram(values, _BINS)[1][1:-1])


def histogram_information(labels: list[np.ndarray], z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mutual information (factors, latents), entropies (factors,)), in nats, of latents in bins of equal width."""
    from sklearn.metrics import mutual_info_score

    cells = [equal_width(latent) for latent in z.T]
    information = np.array([[mutual_info_score(label, cell) for cell in cells] for label in labels])
    return information, np.array([_entropy(label) for label in labels])


def _entropy(label):
    return special.entr(np.bincount(label) / len(label)).sum()


def _modularity(information):
    """The paper's mean is over all latents: one without information counts as 0."""
    found = (information > 1e-12).any(axis=0)
    return factor_scores.modularity(np.where(information > 1e-12, information, 0)) * float(np.mean(found))


def _forests(columns, values, z, seed):
    """(importances (factors, latents), mean score on a fifth of the rows: R^2, for categories the accuracy)."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    importance, scores, cut = [], [], len(z) * 4 // 5
    for column, target in zip(columns, values, strict=True):
        kind = RandomForestClassifier if column.factor.kind == "categorical" else RandomForestRegressor
        forest = kind(_TREES, max_features=1.0, random_state=seed).fit(z[:cut], target[:cut])
        importance.append(forest.feature_importances_)
        scores.append(forest.score(z[cut:], target[cut:]))
    return np.array(importance), float(np.mean(scores))


def separation(columns: list[Column], values: list[np.ndarray], z: np.ndarray) -> np.ndarray:
    """(factors, latents): squared correlations; for categories the balanced accuracy of thresholds on the latent."""
    from sklearn.tree import DecisionTreeClassifier

    matrix = np.zeros((len(columns), z.shape[1]))
    for k, (column, target) in enumerate(zip(columns, values, strict=True)):
        for j in np.flatnonzero(z.std(axis=0) > 0):
            if column.factor.kind == "categorical":
                leaves = max(2, int(target.max()) + 1)
                tree = DecisionTreeClassifier(max_leaf_nodes=leaves, class_weight="balanced", random_state=0)
                right = tree.fit(z[:, [j]], target).predict(z[:, [j]]) == target
                matrix[k, j] = np.mean([right[target == value].mean() for value in np.unique(target)])
            elif np.ptp(target) > 0:
                matrix[k, j] = np.corrcoef(z[:, j], target)[0, 1] ** 2
    return matrix


def _votes(columns, z, rng):
    if not z.shape[1]:
        return dict.fromkeys(factor_scores.VOTES, 1 / len(columns))
    z = z / z.std(axis=0)
    fixed = [factor_scores.Fixed(column, np.arange(len(z))) for column in columns]
    known = factor_scores.variance_votes(z, fixed, _VOTES, rng, _VARIANCE_ROWS)
    first, second = (factor_scores.difference_votes(z, fixed, _VOTES, rng, _PAIRS) for _ in range(2))
    accuracies = factor_scores.majority_accuracy(known, known), factor_scores.linear_accuracy(first, second)
    return dict(zip(factor_scores.VOTES, accuracies, strict=True))


def _explicitness(label, z):
    """The mean AUC of one-against-rest logistic regression, over the factor's values."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    x = (z - z.mean(axis=0)) / np.maximum(z.std(axis=0), 1e-12)
    values = [value for value in np.unique(label) if 0 < np.sum(label == value) < len(label)]
    models = [LogisticRegression().fit(x, label == value) for value in values]
    areas = [
        roc_auc_score(label == value, model.decision_function(x)) for value, model in zip(values, models, strict=True)
    ]
    return float(np.mean(areas))


def _infomec(labels, z, seed):
    """Kraskov's estimate with 10 neighbors, and logistic regression without a penalty, on its own rows."""
    from sklearn.feature_selection import mutual_info_classif
    from sklearn.linear_model import LogisticRegression

    spread = np.ptp(z, axis=0)
    z = z[:, spread > _RANGE * spread.max()]
    if not z.shape[1]:
        return {"InfoM": 0.0, "InfoC": 0.0, "InfoE": 0.0}
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    share, explicit = [], []
    for label in labels:
        shares = mutual_info_classif(z, label, discrete_features=False, n_neighbors=_NEIGHBORS, random_state=seed)
        share.append(shares / _entropy(label))
        model = LogisticRegression(C=np.inf, class_weight="balanced", max_iter=100).fit(z, label)
        null = LogisticRegression(C=np.inf, class_weight="balanced").fit(0 * z, label)
        losses = [-np.mean(each.predict_log_proba(x)[np.arange(len(z)), np.searchsorted(each.classes_, label)])
                  for each, x in ((model, z), (null, 0 * z))]  # fmt: skip
        explicit.append(1 - losses[0] / losses[1])
    share = np.array(share)
    scores = factor_scores.concentration(share), factor_scores.concentration(share.T), float(np.mean(explicit))
    return dict(zip(("InfoM", "InfoC", "InfoE"), scores, strict=True))
