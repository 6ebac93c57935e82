"""Contenders with faults, for tests of the harness: it loads this file in their processes."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np

NAPS = 0.02  # seconds an epoch: a hundred times the small model's own


def make(name: str, task: Any) -> Any:
    """The contender of that name."""
    match name:
        case "dies":
            os._exit(3)
        case "unable":
            raise NotImplementedError("no layer at all")
        case "lonely":
            raise NotImplementedError(f"gemmc is {'' if 'gemmc' in sys.modules else 'not '}loaded")
    from gemmc.bench.peers.ours import Epochs

    class Slow(Epochs):
        """gemmc, with a nap in every epoch."""

        def epoch(self, order: np.ndarray) -> float:
            time.sleep(NAPS)
            return super().epoch(order)

    class Wrong(Epochs):
        """gemmc, with a last bias that gets no gradient."""

        def epoch(self, order: np.ndarray) -> float:
            before = self.executable.model.state_dict()["2.bias"]
            loss = super().epoch(order)
            self.executable.model.state.put("2.bias", before)
            return loss

    class Shifted(Epochs):
        """gemmc, with another output."""

        def predict(self, x: np.ndarray) -> np.ndarray:
            return super().predict(x) + np.float32(0.01)

    return {"slow": Slow, "wrong": Wrong, "shifted": Shifted, "twin": Epochs}[name](task)
