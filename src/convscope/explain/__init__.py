"""See inside a network: one value as its terms, down to the pixels; feature maps as pictures."""

from convscope.explain.features import FeatureMap, feature_maps, save_maps
from convscope.explain.operators import EXPLAINERS, explain
from convscope.explain.terms import Explanation, Term
from convscope.explain.tree import Tree, first_nan, trace

__all__ = [
    "EXPLAINERS",
    "Explanation",
    "FeatureMap",
    "Term",
    "Tree",
    "explain",
    "feature_maps",
    "first_nan",
    "save_maps",
    "trace",
]
