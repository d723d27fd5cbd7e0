"""How well classes, grades and percentages are told. Measures without meaning for the cases at hand are ``None``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.metrics.calibration import brier_score, expected_calibration_error


def binary_measures(probability: np.ndarray, truth: np.ndarray, threshold: float = 0.5) -> dict[str, float | None]:
    """Ranking, decisions at a threshold, and calibration of a two-class answer.

    :param probability: (n,) of the positive class.
    :param truth: (n,) bool.
    :return: "roc_auc", "pr_auc" (average precision), "balanced_accuracy", "accuracy", "f1", "sensitivity",
        "specificity", "expected_calibration_error", "brier_score".
    """
    truth = truth.astype(bool)
    found = probability >= threshold
    hits, both = int((found & truth).sum()), int(found.sum() + truth.sum())
    return {
        "roc_auc": _roc_auc(probability, truth),
        "pr_auc": _average_precision(probability, truth),
        "balanced_accuracy": _balanced_accuracy(found, truth),
        "accuracy": float((found == truth).mean()),
        "f1": 2 * hits / both if both else None,
        "sensitivity": _share(found, truth),
        "specificity": _share(~found, ~truth),
        "expected_calibration_error": expected_calibration_error(probability, truth),
        "brier_score": brier_score(probability, truth),
    }


def class_measures(probabilities: np.ndarray, truth: np.ndarray, names: Sequence[str]) -> dict[str, float | None]:
    """Ranking, decisions and calibration of an answer with several classes.

    :param probabilities: (n, classes), sums to 1.
    :param truth: (n,) class numbers.
    :param names: of the classes.
    :return: "roc_auc" of each class against the others by name and their mean, "balanced_accuracy", "accuracy",
        "f1" (mean over the classes that occur), "expected_calibration_error" of the most likely class,
        "brier_score" (Brier 1950: 0..2).
    """
    found = probabilities.argmax(1)
    areas = [_roc_auc(probabilities[:, number], truth == number) for number in range(len(names))]
    known = [area for area in areas if area is not None]
    return {
        "roc_auc": float(np.mean(known)) if known else None,
        **{f"roc_auc_{name}": area for name, area in zip(names, areas, strict=True)},
        "balanced_accuracy": _balanced_accuracy(found, truth),
        "accuracy": float((found == truth).mean()),
        "f1": _macro_f1(found, truth, len(names)),
        "expected_calibration_error": expected_calibration_error(probabilities.max(1), found == truth),
        "brier_score": float(((probabilities - np.eye(len(names))[truth]) ** 2).sum(1).mean()),
    }


def without_disease_measures(found: np.ndarray) -> dict[str, float | None]:
    """How little is found where nothing is.

    :param found: (n,) affected percentages of lungs without disease, at least one.
    :return: "median" and "percentile_95" in percent, "share_of_scans_under_2_percent" in 0..1.
    """
    return {
        "median": float(np.median(found)),
        "percentile_95": float(np.percentile(found, 95)),
        "share_of_scans_under_2_percent": float((found < 2).mean()),
    }


def number_measures(found: np.ndarray, truth: np.ndarray, is_grade: bool = False) -> dict[str, float | None]:
    """How well a percentage or a grade is told.

    :param found: (n,).
    :param truth: (n,).
    :param is_grade: whole numbers, which may be right or wrong.
    :return: "mean_absolute_error", "spearman_rho"; of grades also "balanced_accuracy" and "accuracy".
    """
    measures = {
        "mean_absolute_error": float(np.abs(found.astype(float) - truth).mean()),
        "spearman_rho": _spearman(found, truth),
    }
    if is_grade:
        measures["balanced_accuracy"] = _balanced_accuracy(found, truth)
        measures["accuracy"] = float((found == truth).mean())
    return measures


def _roc_auc(probability: np.ndarray, truth: np.ndarray) -> float | None:
    import torch
    from torchmetrics.functional.classification import binary_auroc

    if truth.all() or not truth.any():
        return None
    return float(binary_auroc(torch.from_numpy(probability), torch.from_numpy(truth).long(), validate_args=False))


def _average_precision(probability: np.ndarray, truth: np.ndarray) -> float | None:
    import torch
    from torchmetrics.functional.classification import binary_average_precision

    if truth.all() or not truth.any():
        return None
    target = torch.from_numpy(truth).long()
    return float(binary_average_precision(torch.from_numpy(probability), target, validate_args=False))


def _macro_f1(found: np.ndarray, truth: np.ndarray, classes: int) -> float:
    import torch
    from torchmetrics.functional.classification import multiclass_f1_score

    answers = torch.from_numpy(found), torch.from_numpy(truth)
    return float(multiclass_f1_score(*answers, num_classes=classes, average="macro", validate_args=False))


def _balanced_accuracy(found: np.ndarray, truth: np.ndarray) -> float | None:
    """Mean over the classes that occur of the share that was told; ``None`` when only one class occurs.

    (torchmetrics counts a class that does not occur, but was answered, as one that was never told.)
    """
    classes = np.unique(truth)
    if len(classes) < 2:
        return None
    return float(np.mean([(found[truth == value] == value).mean() for value in classes]))


def _share(found: np.ndarray, among: np.ndarray) -> float | None:
    return float(found[among].mean()) if among.any() else None


def _spearman(found: np.ndarray, truth: np.ndarray) -> float | None:
    from scipy.stats import spearmanr

    if len(np.unique(found)) < 2 or len(np.unique(truth)) < 2:
        return None
    return float(spearmanr(found, truth).statistic)
