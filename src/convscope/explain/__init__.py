"""See inside a network: one value as its terms, down to the pixels; feature maps as pictures."""

from convscope.explain.attribution import METHODS, Attribution, attribute
from convscope.explain.channels import LayerStatistics, statistics
from convscope.explain.features import FeatureMap, feature_maps, save_maps
from convscope.explain.operators import EXPLAINERS, explain
from convscope.explain.terms import Explanation, Term
from convscope.explain.tree import Tree, first_nan, trace
from convscope.explain.weights import Kernels, kernels

__all__ = [
    "EXPLAINERS",
    "METHODS",
    "Attribution",
    "Explanation",
    "FeatureMap",
    "Kernels",
    "LayerStatistics",
    "Term",
    "Tree",
    "attribute",
    "explain",
    "feature_maps",
    "first_nan",
    "kernels",
    "save_maps",
    "statistics",
    "trace",
]
