# SPDX-License-Identifier: Apache-2.0
"""References in AArch64 code follow what they refer to, compiled or not."""

import struct

import pytest
from fakes.arm_programs import CUT, INSERTED, moved, program, step
from fakes.bundles import delta_job, perform
from fakes.programs import CODE_AT, delta, rows
from fakes.uncompiled import BOTH, use

from updaterd.artifact.programs import projection
from updaterd.artifact.programs.image import ARM, CODE
from updaterd.artifact.verify import verify_tree
from updaterd.errors import MalformedError, RejectedError

CODEC = "delta4+xz"
NOP = 0xD503201F


@pytest.fixture(params=BOTH, autouse=True)
def module(request, monkeypatch):
    """Each of the implementations, where the machine has that one."""
    use(request.param, monkeypatch)
    return projection.implementation()


def _projector(module, data, image):
    return module.Projector(
        lambda low, high: data[low:high], rows(0), rows(len(data)), [image]
    )


@pytest.mark.parametrize("at", [0, 1, 20, 59])
@pytest.mark.parametrize("count", [1, 2, 500])
def test_a_program_moved_by_an_insertion_is_the_new_one(module, count, at):
    """All its references follow: nothing is left for the diff."""
    inserted = struct.pack("<2I", NOP, NOP) * count
    old, image = program()
    new, (segments, _, _) = program(inserted, at)
    cut = CODE_AT + (CUT - CODE_AT) // 20 * at
    case = _projector(module, old, module.Image(*image))
    columns = rows(0, cut), rows(cut, len(old) - cut), rows(0, cut + len(inserted))
    case.aim(module.Image(segments, b"", b""), *columns)
    data = bytearray(old)
    case.project(data, *columns)
    made = data[:cut] + inserted + data[cut:]

    assert made.hex(" ", 4) == new.hex(" ", 4)


SEGMENTS = [(0, 0x10000, 0x100, 0x100, 1), (0x100, 0x18000, 0x100, 0x1000, 0)]
APART = [(0, 0x10000, 0x100, 0x100, 1), (0x100, 0x1A010, 0x100, 0x1000, 0)]


def _flat(table):
    return rows(*(number for row in table for number in row))


def _made(module, words, new=APART, copies=((0, 0x200, 0),)):
    """Return the words at 0x20 when the data move by 0x2010."""
    code = struct.pack(f"<{len(words)}I", *words)
    data = bytes(0x20) + code + bytes(0x200 - 0x20 - len(code))
    image = module.Image(_flat(SEGMENTS), rows(ARM, 0, 0x100, *[0] * 5), b"")
    case = _projector(module, data, image)
    columns = [rows(*column) for column in zip(*copies, strict=True)]
    case.aim(module.Image(_flat(new), b"", b""), *columns)
    out = bytearray().join(data[start : start + size] for start, size, _ in copies)
    case.project(out, *columns)
    return list(struct.unpack_from(f"<{len(words)}I", out, 0x20))


PAGE = "adrp x1"


def _at(place):
    return 0x10020 + 4 * place


def _pair(place, target):
    return step(PAGE, _at(0), target), step("add x1, x1", _at(place), target)


@pytest.mark.parametrize("apart", range(1, 9))
def test_who_takes_a_page_may_be_up_to_seven_instructions_behind(module, apart):
    """Farther away, the middle of the page is what is referred to."""
    before, after = _pair(apart, 0x18018), _pair(apart, 0x1A028)
    made = _made(module, [before[0], *[NOP] * (apart - 1), before[1]])

    assert made[0] == after[0]
    assert made[-1] == (after[1] if apart < 8 else before[1])


def test_several_may_take_a_page(module):
    """Until the register holds something else: what comes then is nobody's."""
    old, new = 0x18020, 0x1A030
    kinds = "add x1, x1", "add x1, x1"
    words = [step(PAGE, _at(0), old), step("ldr x2, [x1]", _at(1), old + 8)]
    words += [step(kind, _at(2), old) for kind in kinds]
    made = _made(module, words)

    assert made[1] == step("ldr x2, [x1]", _at(1), new + 8)
    assert made[2] == step(kinds[0], _at(2), new)
    assert made[3] == words[3]


@pytest.mark.parametrize(
    "other",
    [
        step("adr x3", _at(1), 0x10080) & ~31 | 1,  # another address in the register
        step(PAGE, _at(1), 0x10080),
    ],
)
def test_a_page_is_not_taken_behind_another_address(module, other):
    """It is the middle of the page then that is referred to."""
    words = [step(PAGE, _at(0), 0x18018), other, step("add x1, x1", _at(2), 0x18018)]

    assert _made(module, words)[0] == step(PAGE, _at(0), 0x1A010 + 0x800)


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        (step("bl", _at(0), 0x18000), "a call of what is no code"),
        (step("b.ne", _at(0), 0x10080) | 16, "no B.cond"),
        (step("ldr x4", _at(0), _at(0)), "of itself"),
        (step("adr x3", _at(0), 0x30000), "outside"),
        (step(PAGE, _at(0), 0x30000), "a page outside"),
        (0x91400021, "ADD of high bits, with no page before it"),
    ],
)
def test_what_cannot_be_a_reference_stays(module, word, kind):
    assert _made(module, [word]) == [word], kind


def test_a_pair_that_is_copied_apart_stays(module):
    """What takes a page means nothing without it; the page alone is left, too."""
    before = _pair(1, 0x18018)
    copies = (0, 0x24, 0), (0x24, 0x1DC, 0x24)

    assert _made(module, list(before), copies=copies) == list(before)


def test_a_program_has_code_of_one_processor(module):
    both = rows(CODE, 0, 0x20, *[0] * 5, ARM, 0x20, 0x20, *[0] * 5)
    with pytest.raises(ValueError, match="two processors"):
        module.Image(_flat(SEGMENTS), both, b"")


def test_programs_arrive_with_their_references_re_aimed(tmp_path):
    before, after, streams = moved(tmp_path)
    (tmp_path / "delta").write_bytes(delta(streams))
    job = delta_job(tmp_path, tmp_path / "delta", before, after, codec=CODEC)
    perform(job)

    assert INSERTED in (job.destination / "b").read_bytes()
    assert not verify_tree(job.destination, after)


def test_a_codec_without_aarch64_has_no_such_regions(tmp_path):
    """An updaterd that reads only that one would refuse them: so does every other."""
    before, after, streams = moved(tmp_path)
    (tmp_path / "delta").write_bytes(delta(streams))
    job = delta_job(tmp_path, tmp_path / "delta", before, after, codec="delta2+xz")
    with pytest.raises(MalformedError, match="images"):
        perform(job)


@pytest.mark.parametrize("seed", range(2))
def test_mutated_images_are_refused_or_harmless(tmp_path, seed):
    import random

    draw = random.Random(seed)
    before, after, streams = moved(tmp_path)
    for _ in range(40):
        stream = bytearray(streams[5])
        stream[draw.randrange(len(stream))] = draw.choice((0, 1, 5, 6, 0x7F, 0xFF))
        (tmp_path / "delta").write_bytes(delta([*streams[:5], bytes(stream)]))
        job = delta_job(tmp_path, tmp_path / "delta", before, after, codec=CODEC)
        try:
            perform(job)
        except RejectedError:
            continue
        assert not verify_tree(job.destination, after)
