# SPDX-License-Identifier: Apache-2.0
"""Where a channel needs two keys, one proposes, another approves, on two machines."""

import hashlib
import json
import shutil
from datetime import UTC, datetime

import pytest
from fakes.origin import Origin
from fakes.repository import Client
from fakes.trees import make_tree
from tuf.api.metadata import Metadata

from updaterd import cli
from updaterd.core.json_fields import encode
from updaterd.errors import TransientError
from updaterd.release import order
from updaterd.release.rollouts import audit
from updaterd.release.workspace import Workspace

pytestmark = pytest.mark.slow

ON = ("--product", "acme", "--channel", "stable")


class Desks:
    """`ops` has the repository, one key of the channel and the others; `second` one."""

    def __init__(self, root, capsys):
        self.root, self._capsys = root, capsys
        self.ops, self.second = root / "ops", root / "second"
        self.file = root / "stick" / "stable.proposal"
        self.file.parent.mkdir()

    def __call__(self, desk, *words, expect=0):
        code = cli.main(["release", *map(str, words), "--repo", str(desk)])
        out, err = self._capsys.readouterr()
        assert code == expect, (words, out, err)
        return out + err

    def carry(self):
        """Bring the second desk a copy of what is public, and of no key."""
        shutil.rmtree(self.second / "public", ignore_errors=True)
        shutil.copytree(self.ops / "public", self.second / "public")

    def propose(self, version, *words, **more):
        command = ("publish", *ON, "--version", version, "--propose", self.file)
        return self(self.ops, *command, *words, **more)

    def approve(self, desk, **more):
        return self(desk, "approve", self.file, "--yes", "--no-announce", **more)

    def offered(self):
        space = Workspace(self.ops)
        repository = order.open_repository(space, datetime.now(UTC))
        pointer = order.catalog_of(space, repository, "acme").pointer("stable")
        return [offer.version for offer in pointer.releases], pointer.paused


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """1.0.0 is offered, 1.1.0 is there; then the channel needs two keys."""
    root = tmp_path_factory.mktemp("desks")
    ops, second = root / "ops", root / "second"

    def release(*words):
        assert 0 == cli.main(["release", *map(str, words)])

    release("init", ops, "--profile", "demo", *ON)
    at = ("--product", "acme", "--repo", ops)
    one, two = (make_tree(root / name, {"bin/app": name}) for name in ("1", "2"))
    shown = ("--channel", "stable", "--no-announce")
    release("push", one, *at, "--version", "1.0.0", *shown)
    release("add", two, *at, "--version", "1.1.0")
    release("keys", "add", "acme.stable", "--name", "second", "--threshold", "2",
            "--repo", ops)  # fmt: skip
    shutil.copytree(ops, second)
    for path in (second / "keys").glob("*.pem"):
        if path.name != "second.pem":
            path.unlink()
    (ops / "keys" / "second.pem").unlink()
    return root


@pytest.fixture
def desks(template, tmp_path, capsys):
    for name in ("ops", "second"):
        shutil.copytree(template / name, tmp_path / name)
    return Desks(tmp_path, capsys)


def code_of(desks, call, *words):
    said = call(*words, "--json", expect=1)
    return json.loads(said.splitlines()[0])["error"]["code"]


def test_one_proposes_another_approves_and_it_is_published(desks):
    said = desks.propose("1.1.0", "--permille", "100")
    assert "proposed, not published" in said
    assert (["1.0.0"], False) == desks.offered()
    said = desks.approve(desks.second)
    assert "proposed:" in said
    assert "1.1.0 (seq 2): 100 of 1000" in said
    assert "signed by second" in said
    assert "enough have signed" in said
    assert (["1.0.0"], False) == desks.offered()
    assert "published in channel stable" in desks.approve(desks.ops)
    assert (["1.1.0", "1.0.0"], False) == desks.offered()
    assert "all well" in desks(desks.ops, "verify", "--deep")


def test_machines_take_what_two_have_signed_and_nothing_else(desks):
    """A thief of one of the keys has the snapshot's and the timestamp's, too."""
    desks.propose("1.1.0")
    desks.approve(desks.second)
    desks.approve(desks.ops)
    with Origin(desks.ops / "public") as origin:
        bootstrap = (desks.ops / "public/metadata/1.root.json").read_bytes()
        client = Client(desks.root / "trust", bootstrap, origin)
        client.now = datetime.now(UTC)
        assert "1.1.0" == client.offered()
        repository = order.open_repository(Workspace(desks.ops), client.now)
        catalog = order.catalog_of(Workspace(desks.ops), repository, "acme")
        catalog.point(catalog.pointer("stable"))
        alone = repository.renew("acme.stable")
        repository.sign("acme.stable", alone, enough=False)
        repository.adopt("acme.stable", alone)  # as if it were enough
        repository.commit()
        with pytest.raises(TransientError) as caught:
            client.offered()
        assert "metadata_forged" == caught.value.code
        client.close()


def test_one_key_alone_publishes_nothing(desks):
    words = ("publish", *ON, "--version", "1.1.0", "--no-announce")
    assert "missing_keys" == code_of(desks, lambda *w, **m: desks(desks.ops, *w, **m),
                                     *words)  # fmt: skip
    desks.propose("1.1.0")
    approve = ("approve", desks.file, "--yes", "--no-announce")
    assert "not_approved" == code_of(
        desks, lambda *w, **m: desks(desks.ops, *w, **m), *approve
    )
    assert (["1.0.0"], False) == desks.offered()


def test_a_pause_is_proposed_as_well(desks):
    desks(desks.ops, "pause", *ON, "--reason", "it burns", "--propose", desks.file)
    assert "paused (it burns)" in desks.approve(desks.second)
    desks.approve(desks.ops)
    assert desks.offered()[1]


def test_what_was_proposed_before_another_change_is_refused(desks):
    """Approving it would undo what came between."""
    desks.propose("1.1.0")
    late = desks.file.read_bytes()
    desks.approve(desks.second)
    desks.approve(desks.ops)
    desks.carry()
    desks(desks.ops, "pause", *ON, "--propose", desks.file)
    desks.approve(desks.second)
    desks.approve(desks.ops)
    desks.file.write_bytes(late)
    desks.carry()
    for desk in (desks.second, desks.ops):
        call = ("approve", desks.file, "--yes", "--no-announce")
        assert "proposal_outdated" == code_of(
            desks, lambda *w, desk=desk, **m: desks(desk, *w, **m), *call
        )


def forge(desks, change):
    """Propose 1.1.0 and more, validly signed by a thief of the one key."""
    desks.propose("1.1.0")
    repository = order.open_repository(Workspace(desks.ops), datetime.now(UTC))
    metadata = Metadata.from_bytes(desks.file.read_bytes())
    change(metadata.signed)
    for target in metadata.signed.targets.values():
        data = encode(target.unrecognized_fields["custom"])
        target.length = len(data)
        target.hashes = {"sha256": hashlib.sha256(data).hexdigest()}
    metadata.signatures.clear()
    repository.sign("acme.stable", metadata, enough=False)
    assert metadata.signatures
    desks.file.write_bytes(repository.encoded(metadata))


def _forged(signed):
    (target,) = signed.targets.values()
    return target.unrecognized_fields["custom"]


def _at_first(signed):
    return _forged(signed)["releases"][0]


HIDDEN = {
    "for newer machines": lambda signed: _forged(signed).update(everybody="now"),
    "in a rollout": lambda signed: _at_first(signed)["rollout"].update(more=1),
    "an urgency": lambda signed: _at_first(signed).update(urgency="Critical"),
    "beside the pointer": lambda signed: next(
        iter(signed.targets.values())
    ).unrecognized_fields.update(custom2={}),
}


@pytest.mark.parametrize("change", HIDDEN.values(), ids=HIDDEN.keys())
def test_what_nobody_is_shown_is_not_signed(desks, change):
    forge(desks, change)
    call = ("approve", desks.file, "--yes", "--no-announce")
    code = code_of(desks, lambda *w, **m: desks(desks.second, *w, **m), *call)
    assert code == "proposal_refused"


SCREEN = "\x1b[2J\x1b[Hacme/stable: active\r\n  1.0.0 (seq 1)"
PLAN = {
    "version": "1.1.0", "step": 0, "since": 1_800_000_000, "reason": "",
    "steps": [{"permille": 1000, "dwell_s": 0, "min_reports": 1}],
    "halt": {"failed_permille": 10, "silent_permille": 1000, "confidence": 950},
}  # fmt: skip
PAINTED = {
    "a tag": lambda signed: _at_first(signed)["rollout"].update(tags=[SCREEN]),
    "a pace": lambda signed: _at_first(signed).update(
        pace={"published_at": 1, "steps": [[1000, 1]], "first": [SCREEN]}
    ),
    "a time that cannot be shown": lambda signed: _at_first(signed).update(
        pace={"published_at": 2**52, "steps": [[1000, 1]]}
    ),
    "a plan that began when it cannot be shown": lambda signed: _forged(signed).update(
        plan={**PLAN, "state": "running", "since": 2**52}
    ),
}


@pytest.mark.parametrize("change", PAINTED.values(), ids=PAINTED.keys())
def test_what_cannot_be_shown_is_not_signed(desks, change):
    forge(desks, change)
    call = ("approve", desks.file, "--yes", "--no-announce")
    code = code_of(desks, lambda *w, **m: desks(desks.second, *w, **m), *call)
    assert code == "proposal_refused"


def test_a_proposal_does_not_write_the_screen_of_who_is_to_sign_it(desks):
    """Texts that clear the screen, and show another proposal in its place."""

    def paint(signed):
        _at_first(signed)["rollout"].update(salt=SCREEN)
        _forged(signed)["plan"] = {**PLAN, "state": SCREEN[:32]}

    forge(desks, paint)
    said = desks.approve(desks.second)
    assert "\x1b" not in said
    assert "drawn by another lot" in said
    assert said.count("x1b[2J") == 2


def test_a_proposal_for_a_later_state_is_not_signed_ahead(desks):
    """Who holds it back could publish it when it is no longer what anybody wants."""

    def later(signed):
        signed.version += 1

    forge(desks, later)
    call = ("approve", desks.file, "--yes", "--no-announce")
    code = code_of(desks, lambda *w, **m: desks(desks.second, *w, **m), *call)
    assert code == "proposal_outdated"


CHANGES = {
    "no channel": lambda signed, _: signed["targets"].clear(),
    "another kind": lambda signed, _: signed.update(_type="snapshot"),
    "another channel": lambda signed, _: _custom(signed).update(channel="beta"),
    "another seq": lambda signed, _: _custom(signed)["releases"][0].update(seq=1),
    "paused": lambda signed, _: _custom(signed).update(paused=True),
    "expired": lambda signed, _: signed.update(expires="2020-01-01T00:00:00Z"),
    "another version": lambda signed, _: signed.update(version=99),
    "nobody signed": lambda _, document: document.update(signatures=[]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_was_changed_on_its_way_is_refused(desks, change):
    desks.propose("1.1.0")
    document = json.loads(desks.file.read_bytes())
    change(document["signed"], document)
    desks.file.write_text(json.dumps(document))
    call = ("approve", desks.file, "--yes", "--no-announce")
    code = code_of(desks, lambda *w, **m: desks(desks.second, *w, **m), *call)
    assert code in {"proposal_refused", "proposal_outdated", "no_such_role"}


def _custom(signed):
    return signed["targets"]["acme/channels/stable.json"]["custom"]


def test_what_one_key_cannot_sign_leaves_no_line_and_says_how_it_is_done(desks):
    before = (desks.ops / "audit.jsonl").read_bytes()
    said = desks(desks.ops, "pause", *ON, "--no-announce", expect=1)
    assert "--propose FILE, then `updaterd release approve FILE`" in said
    assert (desks.ops / "audit.jsonl").read_bytes() == before


def test_a_proposal_that_is_published_says_so(desks):
    desks.propose("1.1.0")
    desks.approve(desks.second)
    desks.approve(desks.ops)
    assert "is published already" in desks.approve(desks.ops, expect=1)
    desks.file.unlink()
    assert "cannot be read" in desks.approve(desks.ops, expect=1)


def test_a_release_that_was_withdrawn_since_is_not_published(desks):
    """The channel did not change meanwhile: it never offered it."""
    desks.propose("1.1.0")
    desks.approve(desks.second)
    subject = ("--product", "acme", "--version", "1.1.0")
    desks(desks.ops, "yank", *subject, "--no-announce")
    desks.carry()
    for desk in (desks.second, desks.ops):
        call = ("approve", desks.file, "--yes", "--no-announce")
        assert "proposal_outdated" == code_of(
            desks, lambda *w, desk=desk, **m: desks(desk, *w, **m), *call
        )
    assert (["1.0.0"], False) == desks.offered()


def test_who_approved_stands_in_the_log_and_contradicts_nothing(desks):
    (desks.second / "audit.jsonl").unlink()  # a desk has a log of its own
    desks.propose("1.1.0")
    desks.approve(desks.second)
    (line,) = audit.read(desks.second).lines
    assert (line["act"], line["version"]) == ("approve", "1.1.0")
    assert line["why"] == "signed by second; needs 2 signatures"
    desks.approve(desks.ops)
    acts = [(line["act"], line["why"]) for line in audit.read(desks.ops).lines]
    assert acts[-2:] == [
        ("publish", ""),
        ("approve", "published; needs 2 signatures"),
    ]
    assert "note:" not in desks(desks.ops, "audit", "--verify")
    desks(desks.ops, "pause", *ON, "--propose", desks.file)
    log = desks.ops / "audit.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:-2], lines[-1]]))
    said = desks(desks.ops, "audit", "--verify", expect=1)
    assert "is not what was written after line" in said


def test_what_cannot_be_published_here_writes_no_line(desks):
    desks.propose("1.1.0")
    desks.approve(desks.second)
    before = (desks.ops / "audit.jsonl").read_bytes()
    unsafe = ("--feed", "http://updates.example.com/v1/events")
    desks(desks.ops, "approve", desks.file, "--yes", *unsafe, expect=1)
    assert (desks.ops / "audit.jsonl").read_bytes() == before
