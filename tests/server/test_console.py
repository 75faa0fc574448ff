# SPDX-License-Identifier: Apache-2.0
"""The web console of a real server: the door, the pages, hostile fields, a browser.

`UPDATERD_AXE=FILE` has another axe.min.js look at the pages: the newest, by hand.
"""

import http.cookiejar
import importlib.util
import json
import os
import re
import sqlite3
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import pytest
from fakes.browser import Browser
from fakes.reports import body, report
from fakes.serving import FeedProcess, request
from hypothesis import given, settings
from hypothesis import strategies as st

from updaterd.core.channel import ChannelPointer, Offer, Rollout
from updaterd.core.pace import Pace
from updaterd.core.pace import Step as PaceStep
from updaterd.core.plan import HALTED, RUNNING, Limits, Plan, Step
from updaterd.server.console import plans
from updaterd.server.console.audit import read_page
from updaterd.server.console.door import _safe
from updaterd.server.console.figures import STATES, row_of
from updaterd.server.console.live import MOST_STREAMS, Live
from updaterd.server.console.offers import Offers
from updaterd.server.console.sessions import LASTS_S, Sessions
from updaterd.server.reports.contract import ChannelNow, ReleaseCounts
from updaterd.server.tokens import Tokens

pytestmark = pytest.mark.slow
EVIL = "\"'><img src=x onerror=alert(1)><svg onload=alert(2)><script>{{7*7}}"
BAD = f"{1:032x}"
FAILURE = {("rolled_back", "unhealthy"): 3}
CHANNEL = "/console/products/acme/channels/stable"
PAGES = (
    "/console/", CHANNEL, f"{CHANNEL}/releases/2.0.0", f"/console/machines/{BAD}",
    "/console/machines", "/console/audit",
)  # fmt: skip


class Person:
    """Who has a browser with cookies, and no script."""

    def __init__(self, url):
        self.url = url
        self.jar = http.cookiejar.CookieJar()
        self._open = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(self.jar)
        )

    def get(self, path, data=None, **headers):
        asked = urllib.request.Request(  # noqa: S310 - our own server's
            f"{self.url}{path}", data=data, headers=headers
        )
        try:
            answer = self._open.open(asked, timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            text = answer.read().decode()
        return answer.status, answer.headers, text, answer.url.removeprefix(self.url)

    def sign_in(self, token, target="/console/", **headers):
        fields = urlencode({"token": token, "next": target}).encode()
        return self.get("/console/login", fields, **headers)


def serve(folder, *arguments):
    return FeedProcess(
        folder / "state", "--reports", "open", "--console", "--reports-rate", "10000",
        *arguments,
    )  # fmt: skip


def post(server, *reports):
    answer = request(
        f"{server.url}/v1/reports", "POST", body(*reports),
        reports_age=",".join(["1"] * len(reports)),
    )  # fmt: skip
    assert answer.status == 202


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("console")
    audit = folder / "audit.jsonl"
    names = ("at", "who", "act", "product", "channel", "version", "why")
    lines = [dict.fromkeys(names, EVIL) | {"counts": {EVIL: EVIL}}, [EVIL], EVIL]
    audit.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + EVIL + "\n")
    with serve(folder, "--audit", str(audit)) as feed:
        feed.reader = feed.token("fleet:read")
        good = (report(n, "2.0.0", seen_s=0.1, fetched_s=1.0) for n in range(2, 12))
        post(feed, report(1, "2.0.0", outcome="rolled_back", tags=("staff",)), *good)
        yield feed


@pytest.fixture
def person(server):
    someone = Person(server.url)
    assert someone.sign_in(server.reader)[0] == 200
    return someone


def test_every_page_asks_who_is_there_and_leads_back(server):
    for path in (*PAGES, f"{CHANNEL}?before=7"):
        stranger = Person(server.url)
        status, _, text, place = stranger.get(path)
        assert (status, place.partition("?")[0]) == (200, "/console/login"), path
        assert "acme" not in text.replace(path, "")
        assert stranger.sign_in(server.reader, path)[3] == path


def test_only_a_token_that_may_read_the_fleet_opens_the_door(server):
    other = server.token("operate", "read", "report:acme", "publish:*/*")
    for token in ("", "upd_nobody", other, f"{server.reader}x", "\U0001f600" * 200):
        stranger = Person(server.url)
        assert stranger.sign_in(token, **{"X-Forwarded-For": "::1"})[0] in {403, 429}
        assert not stranger.jar


def test_cookie_is_for_this_site_and_no_script(server):
    fields = urlencode({"token": server.reader}).encode()
    raw = request(f"{server.url}/console/login", "POST", fields)  # follows
    assert raw.status == 200
    (cookie,) = Person(server.url).jar or [None]
    assert cookie is None

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.build_opener(Stay).open(f"{server.url}/console/login", fields)
    with caught.value as answer:
        header = answer.headers["set-cookie"]
    words = set(header.lower().replace(" ", "").split(";")[1:])
    assert {"httponly", "samesite=strict", "path=/console"} <= words
    assert "secure" not in words  # plain http, here
    assert server.reader not in header


def test_cookie_is_secure_behind_a_proxy_that_speaks_tls(start_feed):
    server = start_feed(*(
        "--reports",
        "open",
        "--console",
        "--trusted-proxy",
        "127.0.0.1",
    ))
    someone = Person(server.url)
    token = server.token("fleet:read")
    someone.sign_in(token, **{"X-Forwarded-Proto": "https"})
    assert all(cookie.secure for cookie in someone.jar)
    assert len(someone.jar) == 1


def test_other_sites_cannot_send_the_form(server):
    for site in ("cross-site", "same-site"):
        stranger = Person(server.url)
        answer = stranger.sign_in(server.reader, **{"Sec-Fetch-Site": site})
        assert answer[0] == 403
        assert not stranger.jar


def test_other_sites_cannot_sign_anybody_out(person):
    # no cookie is needed to have one taken away
    for site in ("cross-site", "same-site"):
        answer = person.get("/console/logout", b"", **{"Sec-Fetch-Site": site})
        assert answer[0] == 403
        assert person.jar
    assert person.get("/console/")[3] == "/console/"


def test_who_guesses_is_sent_away(start_feed):
    server = start_feed("--reports", "open", "--console")
    stranger = Person(server.url)
    answers = [stranger.sign_in(f"upd_{number}") for number in range(14)]
    assert {status for status, *_ in answers[:10]} == {403}
    assert answers[-1][0] == 429
    assert int(answers[-1][1]["retry-after"]) > 0


def test_revoked_token_closes_the_door_behind_its_holder(server):
    token = server.token("fleet:read")
    someone = Person(server.url)
    assert someone.sign_in(token)[3] == "/console/"
    ident = next(iter(someone.jar)).value.partition(".")[0]
    Tokens(server.state).revoke(ident)
    assert someone.get("/console/")[3].startswith("/console/login")
    assert someone.get("/console/live")[0] == 401


def test_signing_out_forgets(person):
    person.get("/console/logout", b"")
    assert person.get("/console/")[3].startswith("/console/login")


class Now:
    def __init__(self):
        self.at = 1_800_000_000.0

    def __call__(self):
        return self.at


def test_cookie_is_worth_nothing_when_changed_late_or_of_another_process(tmp_path):
    tokens, now = Tokens(tmp_path), Now()
    _, secret = tokens.create(("fleet:read",), name="", now=now)
    sessions = Sessions(tokens, now=now, clock=now)
    cookie = sessions.begin(secret)
    assert sessions.holder(cookie) is not None
    for at in range(len(cookie)):
        other = cookie[:at] + ("0" if cookie[at] != "0" else "1") + cookie[at + 1 :]
        assert sessions.holder(other) is None, at
    assert Sessions(tokens, now=now, clock=now).holder(cookie) is None
    now.at += LASTS_S
    assert sessions.holder(cookie) is None


@settings(max_examples=40)
@given(st.text(max_size=60))
def test_signing_in_leads_nowhere_but_to_the_console(text):
    for target in (text, f"/console/{text}", f"//{text}", f"/console/../{text}"):
        assert re.fullmatch(r"/console/[\x21-\x7e]*", _safe(target))
        assert "\\" not in _safe(target)


@settings(max_examples=40)
@given(st.binary(max_size=300), st.integers(0, 400))
def test_audit_file_may_hold_anything(tmp_path_factory, data, until):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(data)
    for place in (None, until):
        assert len(read_page(path, place).lines) <= 100


def test_audit_file_is_read_page_by_page_to_its_beginning(tmp_path):
    path = tmp_path / "audit.jsonl"
    path.write_text(
        "".join(f'{{"at": {n}, "why": "{"x" * 900}"}}\n' for n in range(1000))
    )
    numbers, until = [], None
    while True:
        found = read_page(path, until)
        numbers += [int(line.at) for line in found.lines]
        until = found.older
        if until is None:
            break
    assert numbers == list(reversed(range(1000)))


def test_however_many_look_together_they_ask_for_four_pages_a_second():
    live = Live(lambda: None)
    for live.count in range(1, MOST_STREAMS + 1):
        assert live.count / live.pause_s() <= 4
        assert live.pause_s() >= 1


def test_pages_say_what_was_counted(person):
    _, _, fleet, _ = person.get("/console/")
    assert "acme / stable" in fleet
    _, _, channel, _ = person.get(CHANNEL)
    assert f"/console/machines/{BAD}" in channel
    assert "its health check" in channel  # what the code means
    _, _, release, _ = person.get(f"{CHANNEL}/releases/2.0.0")
    assert "linux-x86_64" in release
    _, _, machine, _ = person.get(f"/console/machines/{BAD}")
    assert "rolled back" in machine
    assert "staff" in machine


def test_what_is_not_there_is_said(person):
    for path in ("/console/products/none/channels/stable", "/console/x",
                 f"{CHANNEL}/releases/9", f"/console/machines/{2:031x}0",
                 "/console/machines/short", "/console/static/../pages.py"):  # fmt: skip
        status, headers, text, _ = person.get(path)
        assert status == 404, path
        assert headers["content-type"].startswith("text/html")
        assert "<h1>" in text
    for path in (f"{CHANNEL}?before=x", "/console/audit?until=-1"):
        assert person.get(path)[0] == 400


def test_every_answer_has_the_policy_and_no_markup_needs_an_exception(person):
    for path in (*PAGES, "/console/login", "/console/nothing"):
        _, headers, text, _ = person.get(path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<[^>]*\s(style|on\w+)=|<style|<script>", text), path


def test_server_without_a_console_has_none(start_feed):
    server = start_feed("--reports", "open")
    assert request(f"{server.url}/console/").status == 404


def test_console_without_reports_is_a_mistake_of_the_command(tmp_path):
    from fakes.machine import cli

    done = cli("serve", "--state", tmp_path, "--console", expect=2)
    assert "--reports" in done.stderr


# ---- in a browser


@pytest.fixture(scope="module")
def browser(server, tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser")) as one:
        one.look()
        one.go(f"{server.url}/console/login")
        one.run(f"document.getElementById('token').value = {json.dumps(server.reader)}")
        one.submit("form.login")
        yield one


def axe():
    """Return the script that finds who is locked out of a page."""
    if other := os.environ.get("UPDATERD_AXE"):
        return Path(other).read_text("utf-8")
    spec = importlib.util.find_spec("axe_core_python")
    return (Path(spec.origin).parent / "axe.min.js").read_text("utf-8")


@pytest.mark.parametrize(
    ("width", "scheme"), [(1200, "light"), (360, "light"), (1200, "dark")]
)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(
    server, browser, width, scheme
):
    browser.look(width=width, scheme=scheme)
    more = ("/console/login", "/console/nothing")
    for path in (*PAGES, *more) if width > 400 and scheme == "light" else PAGES[:2]:
        browser.go(server.url + path)
        browser.run(axe())
        found = browser.run(
            "axe.run().then(r => r.violations.map(v => v.id + ' ' + v.nodes[0].html))"
        )
        assert found == [], path
        spare = "document.documentElement.scrollWidth <= window.innerWidth"
        assert browser.run(spare), path


def test_page_follows_while_it_is_open_and_asks_only_its_own_server(server, browser):
    browser.look()
    browser.requests.clear()
    browser.go(f"{server.url}/console/")
    browser.until("document.getElementById('live')?.textContent === 'Live'", "live")
    post(server, report(1, "1.0.0", seq=1, product="brandnew"))
    browser.until(
        "document.body.textContent.includes('brandnew / stable')", "the new product"
    )
    assert browser.requests
    assert all(each.startswith(server.url) for each in browser.requests)


def connections_to(server):
    """Count those that are open, as the kernel does."""
    port = f":{int(server.url.rpartition(':')[2]):04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(words[1].endswith(port) and words[3] == "01" for words in lines[1:])


def test_pages_that_were_left_hold_no_connection(server, browser):
    """A browser has six, and keeps pages for going back: the next would never come."""
    browser.look()
    for path in (*PAGES[:3], *PAGES[:2]):
        browser.go(server.url + path)
        browser.until("document.getElementById('live')?.textContent === 'Live'", "live")
    assert connections_to(server) <= 3
    browser.run("setTimeout(() => history.back(), 0)")
    browser.until("document.getElementById('live')?.textContent === 'Live'", "live")
    post(server, report(1, "1.0.0", seq=1, product="afterwards"))
    browser.until("document.body.textContent.includes('afterwards')", "what is new")


def test_keyboard_reaches_everything_and_skips_what_repeats(server, browser):
    browser.look()
    browser.go(f"{server.url}{CHANNEL}")
    key = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
    reached = set()
    for number in range(45):
        browser.ask("Input.dispatchKeyEvent", type="keyDown", **key)
        browser.ask("Input.dispatchKeyEvent", type="keyUp", **key)
        name = browser.run("document.activeElement.outerHTML.slice(0, 120)")
        if number == 0:
            assert 'class="skip"' in name
        reached.add(name)
    wanted = browser.run(
        "[...document.querySelectorAll('a, button, input:not([type=hidden])')]"
        ".map(e => e.outerHTML.slice(0, 120))"
    )
    assert set(wanted) <= reached


def test_all_of_it_is_there_without_a_script(server, browser):
    browser.look(script=False)
    try:
        for path in PAGES:
            browser.go(server.url + path)
            root = browser.ask("DOM.getDocument", depth=0)["root"]["nodeId"]
            html = browser.ask("DOM.getOuterHTML", nodeId=root)["outerHTML"]
            assert "<h1>" in html
        assert "announced to over" in html or "Audit" in html
    finally:
        browser.look()


def test_html_in_every_field_is_text_and_no_script_runs(tmp_path, browser):
    """What no report can carry stands in the store and the files themselves."""
    audit = tmp_path / "audit.jsonl"
    audit.write_text(json.dumps({"why": EVIL, "act": EVIL, "counts": {EVIL: 1}}) + "\n")
    server = serve(tmp_path, "--audit", str(audit))
    with server:
        post(server, report(1, "2.0.0", outcome="rolled_back", tags=("staff",)))
        token = server.token("fleet:read")
        server.stop()
    with sqlite3.connect(server.state / "reports.db") as db:
        db.execute(
            "UPDATE place SET platform = platform || ?, version = ?", (EVIL, EVIL)
        )
        db.execute("UPDATE place SET product = ?, channel = ?", (EVIL, EVIL))
        db.execute("UPDATE population SET product = ?, channel = ?", (EVIL, EVIL))
        db.execute("UPDATE machine SET product = ?", (EVIL,))
        db.execute("UPDATE manner SET code = ?, started = ?, path = ?", (EVIL,) * 3)
        db.execute("UPDATE origin SET tags = ?, updater = ?", (EVIL, EVIL))
    db.close()
    with server:
        browser.look()
        browser.go(f"{server.url}/console/login")
        browser.run(f"document.getElementById('token').value = {json.dumps(token)}")
        browser.submit("form.login")
        browser.complaints.clear()
        places = ["/console/", f"/console/machines/{BAD}", "/console/audit"]
        for _ in range(3):
            place = places.pop(0)
            browser.go(server.url + place)
            assert browser.run("document.body.textContent").count("alert(1)")
            assert browser.run("document.images.length") == 0
            assert browser.run("document.scripts.length") == 1
            places += browser.run(
                "[...document.querySelectorAll('td a, th a, dd a')]"
                ".map(a => a.getAttribute('href'))"
            )
        for place in sorted(set(places)):
            assert place.startswith("/console/"), place
            browser.go(server.url + place)
            assert browser.run("document.images.length + document.scripts.length") == 1
        assert browser.complaints == []
        # and were it markup, the policy would stop it
        browser.run(
            "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"1\">')"
        )
        browser.until("document.images.length === 1", "markup, by hand")
        assert browser.run("document.title")
        assert browser.complaints


PLAN = Plan(
    version="2.0.0",
    steps=(
        Step(permille=10, dwell_s=3600, min_reports=100),
        Step(permille=250, dwell_s=3600, min_reports=50),
        Step(permille=1000, dwell_s=0, min_reports=1),
    ),
    halt=Limits(),
    step=1,
    since=1_800_000_000,
)


def planned(plan, **more):
    """Return how a plan is shown, where 95 machines are well and 5 are not."""
    pointer = ChannelPointer(
        product="acme", channel="stable", floor_seq=0, plan=plan,
        paused=more.pop("paused", False),
        releases=(
            Offer(version="2.0.0", seq=2, rollout=Rollout(permille=250), **more),
            Offer(version="1.0.0", seq=1, rollout=Rollout()),
        ),
    )  # fmt: skip
    well = {("installed", "upgrade"): 95, ("failed", "disk_full"): 3}
    found = {
        "2.0.0": ReleaseCounts(
            version="2.0.0", seq=2, codes={**well, ("rolled_back", "unhealthy"): 5}
        ),
        "1.0.0": ReleaseCounts(version="1.0.0", seq=1, codes=well),
    }
    return plans.guarded(pointer, found.get, machines=100, now=PLAN.since + 60)


def test_a_plan_is_shown_with_its_evidence_and_what_comes_next():
    shown = planned(PLAN)
    assert [step.state for step in shown.steps] == ["over", "now", ""]
    seen = shown.evidence
    assert (seen.well, seen.failed, seen.other, seen.reached) == (95, 5, 3, 25)
    assert (seen.base_version, seen.base_well) == ("1.0.0", 95)
    assert shown.verdict.code == "rollout_unsure"
    assert shown.verdict.next_at == PLAN.since + 3600
    halted = planned(replace(PLAN, state="halted", reason="it fails"), paused=True)
    assert [step.state for step in halted.steps] == ["over", "halted", ""]
    assert halted.verdict.reason == "halted: it fails"
    assert planned(PLAN, paused=True).verdict.code == "paused"
    assert planned(replace(PLAN, version="1.9.0")) is None
    done = planned(replace(PLAN, state="done"))
    assert {step.state for step in done.steps} == {"over"}


def counted(*, running=10, recent=0, codes=None):
    """Return what ten machines of a channel told of its newest release."""
    return ChannelNow(
        product="acme", channel="stable", machines=10, version="2.0.0", seq=2,
        running=running, recent=recent, codes=codes or {},
    )  # fmt: skip


def offered(*, state=RUNNING, paused=False):
    plan = replace(PLAN, state=state, reason="it fails" if state == HALTED else "")
    return ChannelPointer(
        product="acme", channel="stable", floor_seq=0, plan=plan, paused=paused,
        releases=(Offer(version="2.0.0", seq=2, rollout=Rollout(permille=250)),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("now", "pointer", "state", "step"),
    [
        (counted(), None, "quiet", ""),
        (counted(running=5, recent=2), None, "moving", ""),
        (counted(), offered(), "quiet", "step 2 of 3"),
        (counted(running=5, recent=2), offered(), "moving", "step 2 of 3"),
        (counted(), offered(state="done"), "quiet", ""),
        (counted(running=5, recent=2), offered(paused=True), "paused", "step 2 of 3"),
        (counted(codes=FAILURE), offered(), "wrong", "step 2 of 3"),
        (counted(codes=FAILURE), offered(paused=True), "wrong", "step 2 of 3"),
        (counted(codes=FAILURE), offered(state=HALTED, paused=True), "halted", ""),
        # resumed by a person, whose own it is now: not halted any more
        (counted(), offered(state=HALTED), "quiet", ""),
    ],
)
def test_fleet_says_what_was_signed_before_what_was_counted(now, pointer, state, step):
    row = row_of(now, pointer)
    assert (row.state, row.step) == (state, step)
    assert row.state in STATES


def test_a_page_of_channels_reads_the_repository_once_and_sees_each_change(tmp_path):
    """Else 200 channels cost 200 snapshots, each with all 200 in it."""
    names = [f"p{number}" for number in range(200)]
    metadata = tmp_path / "metadata"
    metadata.mkdir()

    def write(edition, reason):
        roles = {f"{name}.stable.json": {"version": edition} for name in names}
        documents = {
            "timestamp": {"meta": {"snapshot.json": {"version": edition}}},
            f"{edition}.snapshot": {"meta": roles},
        }
        for name in names:
            custom = {"paused": True, "reason": reason, "releases": []}
            targets = {f"{name}/channels/stable.json": {"custom": custom}}
            documents[f"{edition}.{name}.stable"] = {"targets": targets}
        for name, signed in documents.items():
            (metadata / f"{name}.json").write_text(json.dumps({"signed": signed}))

    class Counting(Offers):
        read = 0

        def _bytes(self, path):
            self.read += 1
            return super()._bytes(path)

    offers = Counting(tmp_path)
    asked = [(name, "stable") for name in [*names, "none"]]
    for edition in (1, 2):
        write(edition, f"edition {edition}")
        before = offers.read
        found = offers.pointers(asked)
        assert {p.reason for p in found[:-1]} == {f"edition {edition}"}
        assert found[-1] is None
        assert offers.read - before == 202
        before = offers.read
        offers.pointers(asked)
        assert offers.read - before == 2


def test_a_pace_that_is_not_over_reaches_fewer():
    steps = PaceStep(10, 0), PaceStep(1000, 86400)
    slow = Pace(published_at=PLAN.since, steps=steps)
    assert planned(PLAN, pace=slow).evidence.reached == 1


def test_channel_says_what_is_offered_and_why_it_is_paused(tmp_path):
    """From the repository's files, whatever stands in them."""
    metadata = tmp_path / "public/metadata"
    metadata.mkdir(parents=True)
    custom = {
        "paused": True, "reason": EVIL, "plan": {"state": EVIL, "step": [1, {}]},
        "releases": [{"version": "2.0.0", "rollout": {"permille": 250}}, 7, {}],
    }  # fmt: skip
    for name, signed in (
        ("timestamp", {"meta": {"snapshot.json": {"version": 3}}}),
        ("3.snapshot", {"meta": {"acme.stable.json": {"version": 9}}}),
        (
            "9.acme.stable",
            {"targets": {"acme/channels/stable.json": {"custom": custom}}},
        ),
    ):
        document = json.dumps({"signed": signed, "signatures": [{"keyid": EVIL}]})
        (metadata / f"{name}.json").write_text(document)
    with serve(tmp_path, "--repo", str(tmp_path / "public")) as server:
        post(server, report(1))
        someone = Person(server.url)
        _, _, text, _ = someone.sign_in(server.token("fleet:read"), CHANNEL)
        assert "This channel is paused" in text
        assert "25.0 %" in text
        assert "<img" not in text
        (metadata / "9.acme.stable.json").write_text("[")
        (metadata / "timestamp.json").write_text("{}")
        assert "has no such channel" in someone.get(CHANNEL)[2]
