"""How to cite an engine: the software, and the paper its method comes from."""

from __future__ import annotations

from COVIDMultitaskLib import __version__

SOFTWARE = (
    "The COVIDMultitask authors. COVIDMultitask: lung lobes, COVID-19 lesions, severity and diagnosis from one "
    f"chest CT. Version {__version__}."
)

PAPERS: dict[str, str] = {
    "m2unet": (
        "He K, Zhao W, Xie X, et al. Synergistic learning of lung lobe segmentation and hierarchical multi-instance "
        "classification for automated severity assessment of COVID-19 in CT images. Pattern Recognition. "
        "2021;113:107828. doi:10.1016/j.patcog.2021.107828"
    ),
    "deepsc_covid": (
        "Wang X, Jiang L, Li L, et al. Joint learning of 3D lesion segmentation and classification for explainable "
        "COVID-19 diagnosis. IEEE Transactions on Medical Imaging. 2021;40(9):2463-2476. "
        "doi:10.1109/TMI.2021.3079709"
    ),
    "triage": (
        "Goncharov M, Pisov M, Shevtsov A, et al. CT-based COVID-19 triage: deep multitask learning improves joint "
        "identification and severity quantification. Medical Image Analysis. 2021;71:102054. "
        "doi:10.1016/j.media.2021.102054"
    ),
    "amyar": (
        "Amyar A, Modzelewski R, Li H, Ruan S. Multi-task deep learning based CT imaging analysis for COVID-19 "
        "pneumonia: classification and segmentation. Computers in Biology and Medicine. 2020;126:104037. "
        "doi:10.1016/j.compbiomed.2020.104037"
    ),
}
"""The paper an engine's method was published in, by the engine's name; the joint engine has none."""


def citation(engine: str, bundle: str = "", version: str = "") -> str:
    """The text to cite, one reference a line.

    :param bundle: name of the weights, with their ``version``.

    >>> citation("joint", "joint", "0.1.0").splitlines()[-1]
    'Weights: joint 0.1.0.'
    """
    weights = f"Weights: {' '.join(filter(None, [bundle, version]))}." if bundle else ""
    return "\n".join(filter(None, [SOFTWARE, PAPERS.get(engine, ""), weights]))
