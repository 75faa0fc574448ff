"""A hold lasts as long as was said, and a slip of the hand is told at once."""

import pytest

from updaterd.cli import EXIT_USAGE, build_parser


@pytest.mark.parametrize("said", ["", "0s", "nonsense", "9999999w", "7dd"])
def test_time_that_cannot_be_meant_is_wrong_usage(said, capsys):
    """An empty variable in a script must not hold a machine for ever."""
    with pytest.raises(SystemExit) as left:
        build_parser("hold").parse_args(["hold", "--for", said])

    assert EXIT_USAGE == left.value.code
    assert "--for" in capsys.readouterr().err


def test_time_is_read_with_its_unit():
    arguments = build_parser("hold").parse_args(["hold", "--for", "7d"])

    assert 7 * 86400 == arguments.duration
