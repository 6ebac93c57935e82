"""What of a model is compiled in: its parts and their hyper-parameters, as they were."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from .sequential import Sequential

MUTABLE = (list, dict, set, np.ndarray)  # hyper-parameters that may change and stay themselves


class CompiledIn:
    """The hyper-parameters of a model when it was compiled, to be compared with those of now."""

    def __init__(self, model: Sequential) -> None:
        self._model = model
        self._values = {
            name: copy.deepcopy(value) if isinstance(value, MUTABLE) else value
            for name, value in model.hyper_parameters().items()
        }
        self._has_mutable = any(isinstance(v, MUTABLE) for v in self._values.values())
        self._parts = model.layers, model.loss_func, model.optimizer
        self._attributes = model.attributes()
        self._as_they_were = [dict(d) for d in self._attributes]

    def changed(self) -> str:
        """What hyper-parameter has another value by now, or is new; "" if all are as they were."""
        if not self._has_mutable and self._untouched():
            return ""
        now = self._model.hyper_parameters()
        value: Any
        other: Any
        for name, value in self._values.items():
            other = now.get(name)
            if other is not value and not np.array_equal(other, value):
                return f"{name}: got {other!r}, but {value!r} is compiled in"
        new = [name for name in now if name not in self._values]
        return f"{new[0]}: got {now[new[0]]!r}, but no such thing is compiled in" if new else ""

    def _untouched(self) -> bool:
        """Whether all attributes are what they were: quick, and nearly always so."""
        model = self._model
        if (model.layers, model.loss_func, model.optimizer) != self._parts:
            return False
        try:
            return self._attributes == self._as_they_were
        except ValueError:  # an array in place of another
            return False
