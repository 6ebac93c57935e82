"""gemmc: a graph compiler that lowers small neural networks to BLAS, and trains them."""

from .frontend import datasets, figures, ops
from .frontend.datasets import train_val_test_split
from .frontend.executable import Executable, compile
from .frontend.layers import Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU, Softmax
from .frontend.losses import CrossEntropyLoss, Loss, MSELoss
from .frontend.module import Module, Parameter, ones, uniform, zeros
from .frontend.optimizers import SGD, Adam, Optimizer
from .frontend.sequential import Sequential, load
from .frontend.training import History, epoch_order, test, train_val
from .ir import CompileError, DataError, GemmcError

__all__ = [
    "SGD",
    "Adam",
    "CompileError",
    "Conv2d",
    "CrossEntropyLoss",
    "DataError",
    "Dropout",
    "Executable",
    "Flatten",
    "GemmcError",
    "History",
    "Linear",
    "Loss",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "Optimizer",
    "Parameter",
    "ReLU",
    "Sequential",
    "Softmax",
    "compile",
    "datasets",
    "epoch_order",
    "figures",
    "load",
    "ones",
    "ops",
    "test",
    "train_val",
    "train_val_test_split",
    "uniform",
    "zeros",
]
