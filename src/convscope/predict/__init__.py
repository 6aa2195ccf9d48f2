"""What a network says of pictures."""

from convscope.predict.classification import Prediction, Predictions, predict

__all__ = ["Prediction", "Predictions", "predict"]
