# SPDX-License-Identifier: Apache-2.0
"""Why a configuration cannot be used."""

from updaterd.errors import BrokenError


class ConfigError(BrokenError):
    """The configuration cannot be used; the message lists every mistake in it."""

    code = "config"

    def __init__(
        self, cause: str, mistakes: list[str] | None = None, *, do: str = ""
    ) -> None:
        self.details = tuple(mistakes or ())
        super().__init__(
            cause,
            means="updaterd does not start with settings that it may misread",
            do=do or "correct the file and run `updaterd config check`",
        )


class UnsafeConfigError(ConfigError):
    """Others than root and the daemon's user could change the configuration."""

    code = "unsafe_config"

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__(
            "the configuration could be changed by others",
            mistakes,
            do="let only root, or the daemon's user, write it and its directories",
        )
        self.means = "whoever may write it decides what is installed: it is not used"
