# SPDX-License-Identifier: Apache-2.0
"""`release watch`: goes on, halts, tells of it; moves nothing without evidence."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import threading
from pathlib import Path

import pytest
from fakes.fleet import Fleet
from fakes.trees import make_tree

from updaterd import cli

pytestmark = pytest.mark.slow

SECRET = base64.b64encode(b"0123456789abcdef").decode()
PLAN = {
    "steps": [
        {"permille": 10, "dwell_s": 0, "min_reports": 5},
        {"permille": 250, "dwell_s": 0, "min_reports": 50},
        {"permille": 1000, "dwell_s": 0, "min_reports": 100},
    ],
    "halt": {"failed_permille": 300, "confidence": 950},
}


@pytest.fixture(scope="module")
def served():
    fleet = Fleet()
    yield fleet
    fleet.close()


@pytest.fixture(scope="module")
def pushed(served, tmp_path_factory):
    """A workspace where 1.0 is everybody's and 2.0 is rolled out by a plan."""
    root = tmp_path_factory.mktemp("pushed")
    folder, plan = root / "ops", root / "plan.json"
    plan.write_text(json.dumps(PLAN))
    repo = ("--repo", folder, "--no-announce")
    subject = ("--product", "acme", "--channel", "stable", "--version")
    for words in (
        ("init", folder, "--profile", "demo", "--product", "acme", "--channel",
         "stable", "--feed", f"{served.address}/v1/events"),
        ("push", make_tree(root / "1", {"bin/app": "1"}), *subject, "1.0", *repo),
        ("push", make_tree(root / "2", {"bin/app": "2"}), *subject, "2.0", *repo,
         "--plan", plan),
    ):  # fmt: skip
        assert cli.main(["release", *map(str, words)]) == 0
    return root


@pytest.fixture
def fleet(served):
    served.reset()
    return served


@pytest.fixture
def release(tmp_path, pushed, capsys, fleet, monkeypatch):
    """Run `updaterd release ...` in a workspace of its own, as `pushed`."""
    folder = tmp_path / "ops"
    shutil.copytree(pushed / "ops", folder)
    monkeypatch.setenv("UPDATERD_FEED_TOKEN", "publish-token")
    monkeypatch.setenv("UPDATERD_FLEET_TOKEN", "fleet-token")

    def call(*words, expect=0):
        repo = ["--repo", str(folder), "--no-compare"]
        if words[0] in {"status", "audit"}:
            repo.pop()
        code = cli.main(["release", *map(str, words), *repo])
        out, err = capsys.readouterr()
        assert code == expect, (words, out, err)
        call.err = err
        return out

    call.folder, call.drain = folder, capsys.readouterr
    call.push = lambda version, *more: call(
        "push", make_tree(tmp_path / version, {"bin/app": version}), "--product",
        "acme", "--channel", "stable", "--version", version, *more,
    )  # fmt: skip
    call.plan = pushed / "plan.json"
    return call


def watch(release, **more):
    (row,) = json.loads(release("watch", "--once", "--json", **more))["channels"]
    return row


def pointer(release):
    status = json.loads(release("status", "--json"))
    (channel,) = status["products"]["acme"]["channels"]
    return channel


def reach(release):
    return [offer["rollout"]["permille"] for offer in pointer(release)["releases"]]


def audited(release):
    return json.loads(release("audit", "--verify", "--json"))["lines"]


def test_a_good_release_goes_all_the_way_and_each_step_is_signed_and_told(
    release, fleet
):
    assert reach(release) == [10, 1000]
    assert watch(release)["code"] == "rollout_too_few"
    fleet.reports("2.0", well=10)
    assert watch(release)["action"] == "step"
    assert reach(release) == [250, 1000]
    assert watch(release)["code"] == "rollout_too_few"
    fleet.reports("2.0", well=200, failed=1)
    assert watch(release)["action"] == "step"
    assert watch(release)["action"] == "done"
    assert (reach(release), pointer(release)["plan"]["state"]) == ([1000], "done")
    assert watch(release)["action"] == "hold"
    acts = [line["act"] for line in audited(release)]
    assert acts == ["push", "push", "step", "step", "done"]
    assert audited(release)[2]["counts"]["well"] == 10
    assert len(fleet.announced) == 3
    assert fleet.tokens == {"Bearer fleet-token"}


def test_a_bad_release_is_paused_with_its_reason_and_the_next_one_ends_that(
    release, fleet
):
    fleet.reports("2.0", failed=5)
    row = watch(release)
    assert (row["action"], row["acted"]) == ("halt", True)
    channel = pointer(release)
    assert channel["paused"]
    assert channel["plan"]["reason"] == "2.0 failed on 5 of 5 machines, 30 % may"
    assert watch(release)["code"] == "halted"
    assert "Push a release that works: that ends it" in release("watch", "--once")
    assert "2.0 failed on 5 of 5" in release("status")
    release.push("3.0", "--plan", release.plan)
    # where 2.0 runs it is kept; nobody else gets it
    assert reach(release) == [10, 0, 1000]
    assert not pointer(release)["paused"]
    assert pointer(release)["plan"]["version"] == "3.0"
    line = audited(release)[2]
    assert (line["act"], line["counts"]["failed"]) == ("halt", 5)


def test_who_resumes_takes_over(release, fleet):
    fleet.reports("2.0", failed=5)
    watch(release)
    said = release("resume", "--product", "acme", "--channel", "stable")
    assert "`release watch` leaves it alone" in said
    assert watch(release)["code"] == "by_hand"
    assert "with one of 10, 250, 1000 gives it back" in release("watch", "--once")
    release("pause", "--product", "acme", "--channel", "stable")
    release("resume", "--product", "acme", "--channel", "stable")
    assert watch(release)["code"] == "by_hand"
    release("rollout", "--product", "acme", "--channel", "stable", "--permille", "10")
    assert watch(release)["code"] == "rollout_failing"


def test_without_a_token_watch_says_which_one_it_lacks(release, monkeypatch):
    monkeypatch.delenv("UPDATERD_FLEET_TOKEN")
    monkeypatch.delenv("UPDATERD_FEED_TOKEN")
    release("watch", "--once", expect=1)
    assert "nothing moves: what watch signs could not be announced" in release.err
    release("watch", "--once", "--no-announce", expect=1)
    assert "no token to read what machines reported" in release.err
    assert "nothing was published" not in release.err


def test_a_pause_by_hand_is_left_alone_whatever_is_reported(release, fleet):
    release("pause", "--product", "acme", "--channel", "stable")
    fleet.reports("2.0", well=500)
    assert watch(release)["code"] == "paused"
    assert reach(release) == [10, 1000]


def test_a_step_by_hand_is_a_step_of_the_plan_or_takes_over(release, fleet):
    subject = ("--product", "acme", "--channel", "stable")
    release("rollout", *subject, "--permille", "250")
    assert pointer(release)["plan"]["step"] == 1
    release("rollout", *subject, "--permille", "300")
    fleet.reports("2.0", well=500)
    assert watch(release)["code"] == "by_hand"


SILENCE = {
    "dead": lambda fleet: setattr(fleet, "status", None),
    "refusing the token": lambda fleet: setattr(fleet, "status", 403),
    "without reports": lambda fleet: setattr(fleet, "status", 404),
    "failing": lambda fleet: setattr(fleet, "status", 500),
    "of another age": lambda fleet: setattr(fleet, "answer", {"schema": 9}),
    "talking nonsense": lambda fleet: setattr(
        fleet, "answer", {"schema": 1, "channels": [{"product": 1}]}
    ),
    "lying with impossible counts": lambda fleet: fleet.reports("2.0", well=-5),
    "lying with what takes for ever to judge": lambda fleet: fleet.reports(
        "2.0", well=19 * 10**21, failed=10**21
    ),
    "lying with a fleet without end": lambda fleet: setattr(
        fleet, "machines", float("inf")
    ),
}


@pytest.mark.parametrize("trouble", SILENCE)
def test_a_server_of_reports_that_tells_nothing_moves_nothing(release, fleet, trouble):
    fleet.reports("2.0", well=500)
    SILENCE[trouble](fleet)
    words = ["release", "watch", "--once", "--json", "--repo", str(release.folder)]
    assert cli.main([*words, "--no-compare"]) != 0
    release.drain()
    assert reach(release) == [10, 1000]
    assert [line["act"] for line in audited(release)] == ["push", "push"]


def test_without_the_online_key_nothing_moves_and_nothing_is_written(release, fleet):
    fleet.reports("2.0", well=10)
    before = (release.folder / "audit.jsonl").read_bytes()
    for key in (release.folder / "keys").glob("online*"):
        key.unlink()
    words = ["release", "watch", "--once", "--repo", str(release.folder)]
    assert cli.main([*words, "--no-compare"]) != 0
    assert "nothing moves" in release.drain()[0]
    assert (release.folder / "audit.jsonl").read_bytes() == before
    assert not (release.folder / "watch.json").exists()


def two_look(release):
    """Have two look at once."""
    words = ["release", "watch", "--once", "--repo", str(release.folder)]
    several = [
        threading.Thread(target=cli.main, args=([*words, "--no-compare"],))
        for _ in range(2)
    ]
    for each in several:
        each.start()
    for each in several:
        each.join()


def test_two_who_watch_at_once_make_one_step(release, fleet):
    fleet.reports("2.0", well=10)
    two_look(release)
    release.drain()
    assert reach(release) == [250, 1000]
    assert [line["act"] for line in audited(release)].count("step") == 1


def test_what_was_signed_and_not_announced_is_announced_by_the_next_look(
    release, fleet
):
    fleet.reports("2.0", failed=5)
    words = ("--feed", "http://127.0.0.1:1/v1/events")
    reports = ("--reports", f"{fleet.address}/v1/fleet")
    release("watch", "--once", *words, *reports, expect=1)
    assert pointer(release)["paused"]
    before = len(fleet.announced)
    assert watch(release)["code"] == "halted"
    assert len(fleet.announced) == before + 1
    watch(release)
    assert len(fleet.announced) == before + 1


def hooked(release, fleet, **more):
    (release.folder / "hook.secret").write_text(f"whsec_{SECRET}\n")
    (release.folder / "hook.url").write_text(f"{fleet.address}/hook/s3cr3t\n")
    text = '\n[[webhooks]]\nurl_file = "hook.url"\nsecret_file = "hook.secret"\n'
    with (release.folder / "release.toml").open("a") as file:
        file.write(text + "".join(f'{k} = "{v}"\n' for k, v in more.items()))
    watch(release)


def test_a_webhook_is_signed_and_comes_once(release, fleet):
    hooked(release, fleet)
    assert fleet.hooks == []
    fleet.reports("2.0", failed=5)
    watch(release)
    watch(release)
    ((headers, body),) = fleet.hooks
    headers = {name.lower(): value for name, value in headers.items()}
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.digest(b"0123456789abcdef", signed, hashlib.sha256)
    expected = f"v1,{base64.b64encode(digest).decode()}"
    assert headers["webhook-signature"] == expected
    message = json.loads(body)
    assert message["type"] == "channel.halt"
    assert message["data"]["counts"]["failed"] == 5
    assert "2.0 failed on 5 of 5 machines" in message["text"]


def test_a_webhook_that_is_refused_comes_again_and_names_no_secret(release, fleet):
    hooked(release, fleet, form="slack")
    fleet.refuse = [500, 500]
    fleet.reports("2.0", failed=5)
    watch(release)
    assert "answered 500" in release.err
    assert "s3cr3t" not in release.err
    assert SECRET not in release.err
    for _ in range(3):
        watch(release)
    assert len(fleet.hooks) == 3
    assert set(json.loads(fleet.hooks[-1][1])) == {"text"}


def test_a_plan_of_release_toml_counts_for_every_push(release):
    with (release.folder / "release.toml").open("a") as file:
        file.write('plan = "mine"\n[plans.mine]\n')
        file.write("steps = [{ permille = 7, dwell_s = 1, min_reports = 1 }]\n")
    release.push("3.0")
    assert reach(release)[0] == 7
    release.push("4.0", "--plan", "none")
    assert (reach(release), "plan" in pointer(release)) == ([1000], False)


@pytest.mark.parametrize(
    "words", [("--plan", "nonsense"), ("--plan", "guarded", "--permille", "5")]
)
def test_a_plan_that_cannot_be_used_publishes_nothing(release, tmp_path, words):
    tree = make_tree(tmp_path / "x", {"bin/app": "x"})
    subject = ("--product", "acme", "--channel", "stable", "--version", "9")
    release("push", tree, *subject, *words, expect=1)
    assert reach(release) == [10, 1000]


NO_FEED = ("--feed", "http://127.0.0.1:1/v1/events")


def test_a_halt_does_not_wait_for_a_feed_that_is_away(release, fleet):
    """Machines look by themselves: they find a halt that they are not told of."""
    reports = ("--reports", f"{fleet.address}/v1/fleet")
    fleet.reports("2.0", well=10)
    said = release("watch", "--once", *NO_FEED, *reports, expect=1)
    assert "stepped on" in said
    assert "signed, and machines were not told" in said
    assert "nothing moves" not in said
    fleet.reports("2.0", well=10, failed=50)
    said = release("watch", "--once", *NO_FEED, *reports, "--json", expect=1)
    (row,) = json.loads(said)["channels"]
    assert (row["action"], row["acted"], row["told"]) == ("halt", True, False)
    assert pointer(release)["paused"]


def test_a_halt_does_not_wait_for_a_webhook_that_cannot_be_used(release, fleet):
    hooked(release, fleet)
    (release.folder / "hook.secret").unlink()
    fleet.reports("2.0", failed=5)
    (row,) = json.loads(release("watch", "--once", "--json", expect=1))["channels"]
    assert row["acted"]
    assert "webhooks[1] of release.toml cannot be used" in release.err
    assert pointer(release)["paused"]


def test_a_log_out_of_a_backup_does_not_silence_webhooks(release, fleet):
    hooked(release, fleet)
    kept = (release.folder / "audit.jsonl").read_bytes()
    release("pause", "--product", "acme", "--channel", "stable")
    release("resume", "--product", "acme", "--channel", "stable")
    watch(release)
    assert len(fleet.hooks) == 2
    (release.folder / "audit.jsonl").write_bytes(kept)
    fleet.reports("2.0", failed=5)
    watch(release)
    assert json.loads(fleet.hooks[-1][1])["type"] == "channel.halt"


def test_what_webhooks_do_not_get_of_a_broken_log_is_said(release, fleet):
    hooked(release, fleet)
    log = release.folder / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"n":2', b'"n":3'))
    fleet.reports("2.0", failed=5)
    assert watch(release)["acted"]
    assert "line 2 is not what was written after line 1" in release.err


def test_a_disk_that_refuses_the_log_moves_nothing_and_says_so(release, fleet):
    log = release.folder / "audit.jsonl"
    log.unlink()
    log.mkdir()
    fleet.reports("2.0", failed=5)
    said = release("watch", "--once", expect=1)
    assert "nothing moves: the disk refused" in said
    assert not pointer(release)["paused"]


def test_a_plan_that_could_never_step_on_is_refused_when_it_is_read(release, tmp_path):
    plan = tmp_path / "none.json"
    plan.write_text(json.dumps(PLAN | {"halt": {"failed_permille": 0}}))
    tree = make_tree(tmp_path / "x", {"bin/app": "x"})
    subject = ("--product", "acme", "--channel", "stable", "--version", "9")
    release("push", tree, *subject, "--plan", plan, expect=1)
    assert "no number of machines proves that none fails" in release.err


def test_a_disk_that_is_full_once_it_is_signed_does_not_deny_the_halt(release, fleet):
    memory = release.folder / "watch.json"

    class Full(list):
        def append(self, body):
            memory.unlink()
            memory.mkdir()  # nothing can be remembered from here on
            super().append(body)

    fleet.announced = Full()
    fleet.reports("2.0", failed=5)
    (row,) = json.loads(release("watch", "--once", "--json", expect=1))["channels"]
    assert (row["acted"], row["action"], row["told"]) == (True, "halt", False)
    assert "it is signed and stands" in release.err
    assert pointer(release)["paused"]


# ---- a channel that needs two signatures


@pytest.fixture
def second(release, tmp_path):
    """Have the channel need two keys, the other of them at a second desk."""
    release("keys", "add", "acme.stable", "--name", "second", "--threshold", "2")
    desk = tmp_path / "second"
    shutil.copytree(release.folder, desk)
    for key in (desk / "keys").glob("*.pem"):
        if key.name != "second.pem":
            key.unlink()
    (release.folder / "keys" / "second.pem").unlink()

    def approve(path, *, at=desk):
        shutil.rmtree(desk / "public")
        shutil.copytree(release.folder / "public", desk / "public")
        words = ("approve", path, "--yes", "--no-announce", "--repo", at)
        code = cli.main(["release", *map(str, words), "--no-compare"])
        assert code == 0, release.drain()
        release.drain()

    return approve


def test_with_one_of_two_keys_a_halt_is_proposed_and_said_not_to_be_in_force(
    release, fleet, second
):
    hooked(release, fleet)
    fleet.reports("2.0", failed=5)
    said = release("watch", "--once", expect=1)
    assert "halt proposed, NOT in force" in said
    assert "(second): carry " in said
    assert "machines that the rollout reaches already go on" in release.err
    assert not pointer(release)["paused"]
    (row,) = json.loads(release("watch", "--once", "--json", expect=1))["channels"]
    assert (row["acted"], row["proposed"]["action"]) == (False, "halt")
    assert row["proposed"]["ask"] == ["second"]
    types = [json.loads(body)["type"] for _, body in fleet.hooks]
    assert types == ["channel.propose_halt"]  # once, and not as what is done

    file = row["proposed"]["file"]
    second(file)
    assert "signed by enough" in release("watch", "--once", expect=1)
    assert f"enough signed it: publish it, `updaterd release approve {file}" in (
        release.err
    )
    second(file, at=release.folder)
    channel = pointer(release)
    assert channel["paused"]
    assert channel["plan"]["reason"] == "2.0 failed on 5 of 5 machines, 30 % may"
    row = watch(release)
    assert (row["code"], row["proposed"]) == ("halted", None)
    assert audited(release)


def test_with_one_of_two_keys_a_step_is_proposed_and_waits(release, fleet, second):
    fleet.reports("2.0", well=10)
    row = watch(release)
    assert (row["action"], row["proposed"]["action"]) == ("step", "step")
    before = (release.folder / "proposals/acme.stable.proposal").read_bytes()
    assert watch(release)["proposed"] == row["proposed"]
    assert (release.folder / "proposals/acme.stable.proposal").read_bytes() == before
    assert reach(release) == [10, 1000]
    second(row["proposed"]["file"])
    second(row["proposed"]["file"], at=release.folder)
    assert reach(release) == [250, 1000]


def test_a_proposed_step_is_taken_back_when_counts_speak_against_it(
    release, fleet, second
):
    fleet.reports("2.0", well=10)
    file = Path(watch(release)["proposed"]["file"])
    fleet.reports("2.0", well=10, failed=4)
    assert watch(release)["proposed"] is None
    assert not file.exists()
    fleet.reports("2.0", well=10, failed=50)
    (row,) = json.loads(release("watch", "--once", "--json", expect=1))["channels"]
    assert row["proposed"]["action"] == "halt"
    fleet.reports("2.0", well=10_000, failed=50)
    (row,) = json.loads(release("watch", "--once", "--json", expect=1))["channels"]
    assert row["proposed"]["action"] == "halt", "a person takes it back"


def test_a_proposal_that_another_act_overtook_is_taken_back(release, fleet, second):
    fleet.reports("2.0", failed=5)
    file = release.folder / "proposals/acme.stable.proposal"
    release("watch", "--once", expect=1)
    assert file.exists()
    pause = release.folder / "pause.proposal"
    on = ("--product", "acme", "--channel", "stable")
    release("pause", *on, "--reason", "look", "--propose", pause)
    second(pause)
    second(pause, at=release.folder)
    row = watch(release)
    assert (row["code"], row["proposed"]) == ("paused", None)
    assert not file.exists()


def test_two_who_watch_at_once_lay_down_one_proposal(release, fleet, second):
    fleet.reports("2.0", well=10)
    two_look(release)
    assert "proposed, NOT in force" in release.drain()[0]
    assert [line["act"] for line in audited(release)].count("propose_step") == 1


@pytest.mark.parametrize(
    ("broken", "why"),
    [("proposals", "the disk refused"), ("keys/online.pem", "online")],
)
def test_where_no_proposal_can_be_made_nobody_is_called_for_one(
    release, fleet, second, broken, why
):
    (release.folder / broken).write_text("neither a folder nor a key")
    hooked(release, fleet)
    fleet.reports("2.0", failed=5)
    before = (release.folder / "audit.jsonl").read_bytes()
    said = release("watch", "--once", expect=1)
    assert "nothing moves: " in said
    assert why in said
    assert (release.folder / "audit.jsonl").read_bytes() == before
    assert not fleet.hooks


def test_a_foreign_file_among_the_proposals_is_no_proposal(release, fleet, second):
    fleet.reports("2.0", failed=5)
    file = release.folder / "proposals/acme.stable.proposal"
    file.parent.mkdir()
    os.mkfifo(file)
    assert "not a regular file" in release("watch", "--once", expect=1)
    file.unlink()
    file.write_bytes(b"rubbish")
    (row,) = json.loads(release("watch", "--once", "--json", expect=1))["channels"]
    assert row["proposed"]["action"] == "halt"
    assert file.read_bytes() != b"rubbish"


def test_another_channels_halt_among_the_proposals_halts_nothing(
    release, fleet, second
):
    release("keys", "add-channel", "acme", "beta")
    for version in ("1.0", "2.0"):
        plan = ("--plan", release.plan) if version == "2.0" else ()
        on = ("--product", "acme", "--channel", "beta", "--version", version)
        release("publish", *on, *plan)
    release("keys", "add", "acme.beta", "--name", "third", "--threshold", "2")
    (release.folder / "keys" / "third.pem").unlink()
    fleet.reports("2.0", failed=5)
    release("watch", "--once", "--channel", "beta", expect=1)
    folder = release.folder / "proposals"
    (folder / "acme.beta.proposal").rename(folder / "acme.stable.proposal")
    fleet.reports("2.0", well=10)
    said = release("watch", "--once", "--json", "--channel", "stable")
    (row,) = json.loads(said)["channels"]
    assert row["proposed"]["action"] == "step"
