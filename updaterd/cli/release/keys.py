"""`updaterd release keys`."""

from updaterd.cli.release import common


def configure(commands: common.Subcommands) -> None:
    """Declare the arguments."""
