"""Images whose label is probably wrong, found by cleanlab (confident learning)."""

from __future__ import annotations

import warnings

from torch import Tensor

from cifar_cli.errors import check_extra


def suspected_rows(logits: Tensor, labels: Tensor) -> list[int]:
    """Rows of the images that cleanlab suspects of a wrong label, the least probable label first.

    Confident learning (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068). It assumes that
    the network was not trained on these images. An image that the network classifies as its label
    is no suspect.

    Args:
        logits: float (N, C).
        labels: int64 (N,). With labels of a single class there are no suspects.

    Raises:
        ConfigError: cleanlab is not installed.
    """
    check_extra("report", ["cleanlab"], "The search for wrong labels")
    if bool((labels == labels[0]).all()):
        return []
    with warnings.catch_warnings():
        # Of pandas and scikit-learn while they are imported; and cleanlab's own, that it may miss
        # suspects in classes with few images.
        warnings.simplefilter("ignore")
        from cleanlab.filter import find_label_issues

        rows: list[int] = find_label_issues(
            labels.numpy(),
            logits.double().softmax(1).numpy(),
            return_indices_ranked_by="self_confidence",
            n_jobs=1,
        ).tolist()
    return rows
