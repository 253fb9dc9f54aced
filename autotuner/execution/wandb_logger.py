"""Tune's callback for Weights & Biases, whose key does not end up in Ray's state.

Tune's own puts it into the runtime environment of its actors, where everybody sees it who may look
at the cluster. Here it goes to them as an argument.
"""

from __future__ import annotations

import os
from typing import Any

import ray
from ray.air.integrations.wandb import WandbLoggerCallback, _WandbLoggingActor
from ray.air.util.node import _force_on_current_node


class PrivateWandbCallback(WandbLoggerCallback):  # type: ignore[misc]
    """See `WandbLoggerCallback`; besides, `WANDB_MODE` and its like reach the actors too, which
    have their raylet's environment and not the driver's."""

    def setup(self, *args: Any, **kwargs: Any) -> None:
        super().setup(*args, **kwargs)
        self.kwargs["environment"] = {
            name: value for name, value in os.environ.items() if name.startswith("WANDB_")
        }
        self._remote_logger_class = ray.remote(num_cpus=0, **_force_on_current_node())(_Actor)


class _Actor(_WandbLoggingActor):  # type: ignore[misc]
    def __init__(self, *args: Any, environment: dict[str, str], **kwargs: Any) -> None:
        # It writes beside the study, and tells of it on a log that nobody reads.
        os.environ.update({"WANDB_SILENT": "true", **environment})
        super().__init__(*args, **kwargs)
