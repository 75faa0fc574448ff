"""The real daemon, while the repository it looks at turns hostile, again and again.

`test_metadata_attacks` has every variant of these attacks, on a real worker alone.
"""

import pytest

from security.attacks import ATTACKS


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_daemon_outlives_it_and_takes_the_next_good_release(siege, attack):
    """Alive, the tree untouched, the reason in its status; then it goes on."""
    name, make = attack.variants[-2 if len(attack.variants) > 1 else 0]
    with siege.unseen():
        siege.push()
        make(siege.rig)
    siege.provoke(attack.codes, f"{attack.name} {name}")
    assert siege.machine.running == siege.rig.installed
    siege.recovers()


def test_the_memory_of_the_daemon_does_not_grow_with_attacks(siege):
    """After all of the above, in one process (figure printed): 8 MiB more at most."""
    after_kib = siege.resident_kib()
    print(
        f"daemon: {siege.before_kib} KiB before, {after_kib} KiB after "
        f"{siege.attacks} attacks"
    )
    assert after_kib < siege.before_kib + 8 * 1024
