"""See inside a network: one value as its terms, feature maps as pictures."""

from convscope.explain.features import FeatureMap, feature_maps, save_maps
from convscope.explain.terms import EXPLAINERS, Explanation, explain

__all__ = ["EXPLAINERS", "Explanation", "FeatureMap", "explain", "feature_maps", "save_maps"]
