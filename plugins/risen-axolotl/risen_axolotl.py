"""RISEN phases in ``axolotl train``: a plugin of axolotl's that attaches the callback.

Axolotl builds its own Trainer from its own YAML file, so there is no script to attach a callback
in. Its plugins see that Trainer once it is built; this one attaches a ``RisenCallback``, whose
configuration is the key ``risen`` of the same file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axolotl.integrations.base import BasePlugin
from pydantic import BaseModel

from risen_plugin import RisenCallback, RisenConfig
from risen_plugin.errors import ConfigError


class RisenArgs(BaseModel):
    """The key that this plugin adds to axolotl's file.

    :param risen: a configuration as ``RisenConfig`` reads it, or the path of a YAML file with it.
    """

    risen: dict[str, Any] | str | None = None


class Risen(BasePlugin):
    """Attaches a RisenCallback to the Trainer that axolotl has built."""

    def get_input_args(self) -> str:
        """The place of the keys that axolotl is to accept."""
        return f"{__name__}.{RisenArgs.__name__}"

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Attach the callback.

        :raises RisenError: for a configuration, a model or arguments that do not fit.
        """
        RisenCallback(config_from(cfg.risen)).attach(trainer)


def config_from(given: object) -> RisenConfig:
    """The configuration under ``risen`` of axolotl's file.

    :raises ConfigError: if there is none, or it is not as :class:`RisenConfig` reads it.
    """
    if isinstance(given, str):
        return RisenConfig.from_yaml(given)
    if not isinstance(given, Mapping):
        raise ConfigError(
            "axolotl loads the plugin risen_axolotl.Risen, but its file has no key 'risen'; write "
            "rewards and a generator under it, or the path of a YAML file that has them"
        )
    return RisenConfig.from_dict(_plain(given), "risen")


def _plain(value: Any) -> Any:
    """Without axolotl's own mappings, in which a key that is missing is None."""
    if isinstance(value, Mapping):
        return {key: _plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    return value
