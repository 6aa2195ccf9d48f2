"""convscope: build, see, train and speed up convolutional neural networks on PyTorch."""

__version__ = "0.1.0"
