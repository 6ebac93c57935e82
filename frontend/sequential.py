"""Sequential: the model people write, and the parameters it owns."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from stat import S_IMODE
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir import CompileError, DataError
from ..passes.forms import SPARSE
from ..passes.layout import Layout
from . import layers as builtin_layers
from . import losses as builtin_losses
from . import optimizers as builtin_optimizers
from .arguments import integer
from .batches import row_shape
from .layers import Conv2d, Dropout, Flatten, Linear, ReLU
from .losses import Loss
from .module import Module, Parameter
from .optimizers import Optimizer
from .state import State

if TYPE_CHECKING:
    from .executable import Executable

FORMAT = "gemmc 1"  # of saved files
LONG = 256  # features from which a Linear's lines are worth leaving out
FIXED = ("layers", "loss_func", "optimizer", "seed")  # the state is laid out for them


class Sequential:
    """Layers in a row, with the loss and the optimiser that train them.

    `seed` draws the first parameters, dropout masks and the order of epochs. Without loss_func or
    optimizer the model can only be evaluated. Parameters, optimiser state and counters belong to
    the model, in one buffer (`state`), whatever is compiled from it. `notes` are text by name, for
    the user to write, and kept with the model: what it was trained on, for example.
    """

    def __init__(
        self,
        layers: Sequence[Module],
        loss_func: Loss | None = None,
        optimizer: Optimizer | None = None,
        seed: int = 0,
    ) -> None:
        self.layers = _checked_layers(layers)
        if loss_func is not None and not isinstance(loss_func, Loss):
            raise CompileError(f"loss_func: got {loss_func!r}, expected a Loss{_call(loss_func)}")
        if optimizer is not None and not isinstance(optimizer, Optimizer):
            raise CompileError(
                f"optimizer: got {optimizer!r}, expected an Optimizer{_call(optimizer)}"
            )
        self.loss_func, self.optimizer = loss_func, optimizer
        self.seed = integer("Sequential", "seed", seed, least=0)
        self.parameters: dict[str, Parameter] = {
            f"{i}.{name}": p
            for i, layer in enumerate(self.layers)
            for name, p in layer.named_parameters()
        }
        self.state = self._new_state()
        self.notes: dict[str, str] = {}
        self._executables: dict[tuple[int, ...], Executable] = {}

    def __setattr__(self, name: str, value: object) -> None:
        if name in FIXED and name in vars(self):
            raise CompileError(
                f"{name}: a model keeps the one it was made with: make another Sequential and hand "
                "the parameters over with load_state_dict"
            )
        super().__setattr__(name, value)

    def loc(self, index: int) -> str:
        """The name of a layer in messages and IR: "3.Conv2d"."""
        return f"{index}.{type(self.layers[index]).__name__}"

    def __call__(self, x: object) -> np.ndarray:
        """The model's output for inputs [rows, ...], in evaluation mode; compiles on first use."""
        from .executable import compile  # executables are made of models

        shape = row_shape("x", x)
        executable = self._executables.get(shape)
        if executable is None or executable.changed():
            executable = self._executables[shape] = compile(self, input_shape=shape)
        return executable(x)

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: all but what is compiled."""
        return {**vars(self), "_executables": {}}

    def hyper_parameters(self) -> dict[str, Any]:
        """What is compiled in, by name: the attributes of layers, loss and optimiser.

        Private ones are left out, and with them the learning rate.
        """
        named = {self.loc(i): layer for i, layer in enumerate(self.layers)}
        parts = {**named, "loss_func": self.loss_func, "optimizer": self.optimizer}
        return {k: v for name, part in parts.items() for k, v in _settings(name, part)}

    def attributes(self) -> list[dict[str, Any]]:
        """The attributes themselves of layers, those inside them, loss and optimiser."""
        return [vars(part) for part in _parts((*self.layers, self.loss_func, self.optimizer))]

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the parameters, under PyTorch's names and in its layouts."""
        return {name: self.state.get(name) for name in self.parameters}

    def load_state_dict(self, arrays: Mapping[str, object]) -> None:
        """Replaces the parameters; optimiser state and step count start anew.

        Arrays may be of any float dtype. DataError, and nothing has moved, if one is missing, not
        known, or of another shape.
        """
        checked = self.state.checked(arrays, list(self.parameters))
        for name in self.state.shapes:
            self.state.put(name, checked.get(name, np.zeros(self.state.shapes[name], np.float32)))
        self.state.step = self.state.epoch = 0

    def save(self, path: str | PathLike) -> None:
        """Writes layers, parameters, optimiser state, counters and notes to a safetensors file.

        A new file has the permissions of any new file, an old one keeps its own.
        """
        from safetensors import SafetensorError  # 20 ms, and few programs save
        from safetensors.numpy import save_file

        path = _checked_path(path)
        arrays = {name: self.state.get(name) for name in self.state.shapes}
        try:
            header = {"format": FORMAT, "model": json.dumps(self._description())}
            mode = _mode(path)
            save_file(arrays, path, header)
            path.chmod(mode)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path}: cannot be written: {error}") from error
        except TypeError as error:
            what = "an argument of a layer, or a note"
            raise DataError(f"{path}: {what}, cannot be saved: {error}") from error

    def summary(self, input_shape: tuple[int, ...] | None = None) -> str:
        """The layers as a table: name, arguments, parameters.

        With input_shape also, for one row of a batch, forward: the output's shape, the products'
        floating-point operations, and the bytes of the output.
        """
        from .summary import summary

        return summary(self, input_shape)

    def __repr__(self) -> str:
        inside = "\n".join(f"    {layer!r}," for layer in self.layers)
        tail = f"loss_func={self.loss_func!r}, optimizer={self.optimizer!r}, seed={self.seed}"
        return f"Sequential([\n{inside}\n], {tail})"

    def _new_state(self) -> State:
        names = self.optimizer.state_names if self.optimizer else ()
        forms = _stored_forms(self.layers, self.parameters)
        shapes = {name: p.shape for name, p in self.parameters.items()}
        shapes |= {f"{n}.{s}": p.shape for n, p in self.parameters.items() for s in names}
        forms |= {f"{n}.{s}": form for n, form in forms.items() for s in names}
        state = State(shapes, forms)
        rng = np.random.default_rng(self.seed)
        for name, p in self.parameters.items():
            array = np.asarray(p.init(rng, p.shape), np.float32)
            if array.shape != p.shape:
                raise CompileError(
                    f"{name}: init made {list(array.shape)}, expected {list(p.shape)}"
                )
            state.put(name, array)
        return state

    def _description(self) -> dict[str, Any]:
        parts = {"loss_func": self.loss_func, "optimizer": self.optimizer}
        return {
            "layers": [_described(layer) for layer in self.layers],
            **{key: _described(part) if part else None for key, part in parts.items()},
            "seed": self.seed,
            "step": self.state.step,
            "epoch": self.state.epoch,
            "notes": self.notes,
        }


def load(path: str | PathLike, classes: Sequence[type] = ()) -> Sequential:
    """The model that `save` wrote, ready to go on training where it was.

    `classes` are the user's own layers, losses and optimisers in it; they are made anew from the
    constructor arguments kept under the same names as attributes. DataError names the file and what
    is wrong with it.
    """
    from safetensors import SafetensorError, safe_open

    path = _checked_path(path)
    try:
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (OSError, TypeError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read as safetensors: {error}") from error
    if header.get("format") != FORMAT:
        raise DataError(f"{path}: format: got {header.get('format')!r}, expected {FORMAT!r}")
    try:
        described = json.loads(header["model"])
        model = _remade_model(path, described, _known_classes(classes))
        step, epoch = (integer("model", key, described[key], 0) for key in ("step", "epoch"))
        model.notes = dict(described.get("notes", {}))
    except DataError:
        raise
    except (LookupError, TypeError, ValueError) as error:
        seen = f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: the model in it cannot be made anew: {seen}") from error
    for name, array in model.state.checked(arrays, list(model.state.shapes), f"{path}").items():
        model.state.put(name, array)
    model.state.step, model.state.epoch = step, epoch
    return model


def _checked_path(path: str | PathLike) -> Path:
    if not isinstance(path, (str, PathLike)):
        raise CompileError(f"path: got {path!r}, expected the path of a file")
    return Path(path)


def _mode(path: Path) -> int:
    """The permissions of a file, or of a new one there: safetensors makes its own, for us alone."""
    new = not path.exists()
    if new:
        path.touch()
    mode = S_IMODE(path.stat().st_mode)
    if new:
        path.unlink()
    return mode


def _checked_layers(layers: Sequence[Module]) -> tuple[Module, ...]:
    if not isinstance(layers, (list, tuple)) or not layers:
        raise CompileError(f"layers: got {layers!r}, expected a list of at least one layer")
    owners: dict[int, str] = {}
    for i, layer in enumerate(layers):
        if isinstance(layer, Sequential):
            raise CompileError(
                f"layers: entry {i}: got a Sequential, expected a Module: use *layers"
            )
        if not isinstance(layer, Module):
            raise CompileError(f"layers: entry {i}: got {layer!r}, expected a Module{_call(layer)}")
        for name, parameter in layer.named_parameters():
            first = owners.setdefault(id(parameter), f"{i}.{name}")
            if first != f"{i}.{name}":
                raise CompileError(
                    f"layers: {first} and {i}.{name} are one Parameter: make a layer for each place"
                )
    return tuple(layers)


def _settings(name: str, part: object) -> Iterator[tuple[str, Any]]:
    """(name, value) of the public attributes of a part, those of inner modules as well."""
    for key, value in vars(part).items() if part is not None else ():
        if isinstance(value, Module):
            yield from _settings(f"{name}.{key}", value)
        elif not key.startswith("_"):
            yield f"{name}.{key}", value


def _parts(parts: Iterable[object]) -> Iterator[object]:
    """Parts, and the modules that are attributes of them."""
    for part in parts:
        if part is not None:
            yield part
            yield from _parts(v for v in vars(part).values() if isinstance(v, Module))


def _call(given: object) -> str:
    """What would fix a class given for an instance."""
    return f": use {given.__name__}()" if isinstance(given, type) else ""


def _stored_forms(
    layers: Sequence[Module], parameters: Mapping[str, Parameter]
) -> dict[str, Layout]:
    """The physical form of each parameter that has one: what the compiler's layout pass will want.

    A Linear behind a Flatten of images with c channels keeps its features channel-last; its rows
    stand last, or first where most of its gradient is 0: products by that take lines of [out,in].
    """
    forms = {n: Layout(p.shape, p.perm) for n, p in parameters.items() if p.perm}
    channels, flat = 0, 0
    for i, layer in enumerate(layers):
        if isinstance(layer, Conv2d):
            channels, flat = layer.out_channels, 0
        elif isinstance(layer, Flatten):
            flat = channels
        elif isinstance(layer, Linear):
            forms.pop(f"{i}.weight", None)
            forms |= _linear_form(f"{i}.weight", layer, flat, _let_through(layers[i + 1 :]))
            channels = flat = 0
    return forms


def _linear_form(name: str, layer: Linear, channels: int, share: float) -> dict[str, Layout]:
    """How a Linear's weights are stored, of whose gradient about `share` is not 0.

    It sees images of so many channels laid flat, or none.
    """
    outs, ins = layer.out_features, layer.in_features
    images = channels > 1 and ins > channels and not ins % channels
    factored = (outs, channels, ins // channels) if images else (outs, ins)
    features = (2, 1) if images else (1,)
    if ins < LONG or share > SPARSE:
        return {name: Layout(factored, (*features, 0))}
    return {name: Layout(factored, (0, *features))} if images else {}


def _let_through(layers: Sequence[Module]) -> float:
    """About which share of a layer's gradient the ReLU and Dropout behind it let through."""
    share = 1.0
    for layer in itertools.takewhile(lambda x: isinstance(x, (ReLU, Dropout)), layers):
        share *= 1.0 - layer.p if isinstance(layer, Dropout) else 0.5
    return share


def _described(part: Module | Loss | Optimizer) -> dict[str, Any]:
    return {"class": type(part).__name__, "arguments": part.arguments()}


def _known_classes(classes: Sequence[type]) -> dict[str, type]:
    known: dict[str, type] = {}
    for module in (builtin_layers, builtin_losses, builtin_optimizers):
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, (Module, Loss, Optimizer)):
                known[name] = value
    return known | {c.__name__: c for c in classes}


def _remade_model(path: object, described: Any, known: Mapping[str, type]) -> Sequential:
    parts = {key: described[key] for key in ("loss_func", "optimizer")}
    return Sequential(
        [_remade(path, d, known) for d in described["layers"]],
        seed=described["seed"],
        **{key: _remade(path, d, known) if d else None for key, d in parts.items()},
    )


def _remade(path: object, described: Mapping[str, Any], known: Mapping[str, type]) -> Any:
    name = described["class"]
    if name not in known:
        raise DataError(f"{path}: was saved with a class {name}: use load(path, classes=[{name}])")
    return known[name](**described["arguments"])
