"""Optimizers as the DSL offers them: those of cnnc.ops.optimizer, mistakes placed at the user's line."""

from __future__ import annotations

from cnnc.frontend.calls import user_call
from cnnc.ops import optimizer

SGD = user_call(optimizer.SGD)
Adam = user_call(optimizer.Adam)
