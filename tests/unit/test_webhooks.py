"""Webhooks from the event to the receiver: what comes, what fails and comes again, and what reaches nobody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlmodel import col, select
from standardwebhooks import Webhook

from api.schemas.jobs import EventOut
from carrel_client.webhooks import verify
from config.database import Database
from config.errors import Conflict, InvalidInput, NotFound, Unauthenticated, UrlRefused
from ingestion import webhooks as sender
from tenants.context import TenantContext
from tenants.deletions import Deletions
from tenants.events import DAY_MS, EventLog
from tenants.tables import TenantSecret
from tenants.webhooks import endpoints as webhooks
from tenants.webhooks import outbox as webhook_outbox
from tenants.webhooks.rules import JITTER, MAX_ENDPOINTS, SCHEDULE_S, Outcome
from tenants.webhooks.tables import WebhookDelivery, WebhookEndpoint
from tests.postgresql import ON_SQLITE
from tests.receivers import Message, in_turn, receiver
from tests.support import wait_for
from tests.unit.conftest import SetClock
from tests.unit.webhook_desk import LEASE_S, Desk, context_of

NOWHERE = "https://example.com/hook"


@pytest.fixture
def desk(database: Database, clock: SetClock) -> Iterator[Desk]:
    desk = Desk(database, clock)
    yield desk
    desk.close()


def test_each_tenant_gets_its_own_events_signed_and_as_the_list_shows_them(desk: Desk) -> None:
    desk.clock.now = round(time.time() * 1000)  # the other library knows no other time
    desk.say("a", "document.live", subject="before")
    with receiver() as ours, receiver() as theirs:
        mine, other = desk.hook("a", ours.url), desk.hook("b", theirs.url, "*")
        desk.say("a", "document.queued", "key.created", "document.live", version=2)
        desk.say("b", "job.failed", subject="job_b")
        desk.sender.run_once()
        desk.sender.run_once()
        assert ours.types == ["document.queued", "document.live"], "from its making on, once, and what was asked for"
        assert theirs.types == ["webhook.created", "job.failed"]
        listed, _ = EventLog(desk.database, desk.clock).for_tenant(context_of("a")).list(type="document.", limit=10)
        assert [message.event for message in ours.messages] == [EventOut.of(event).model_dump() for event in listed[1:]]
        for message in ours.messages:
            assert Webhook(mine.secret).verify(message.body, dict(message.headers)) == message.event
            assert verify(message.body, message.headers, mine.secret).id == message.id == message.event["id"]
        assert not {message.event["subject"] for message in theirs.messages} & {"doc_1", "before"}
        assert other.secret != mine.secret
    assert (desk.states("a", mine), desk.states("b", other)) == (["delivered"] * 2, ["delivered"] * 2)


@ON_SQLITE
def test_nine_failures_and_a_success(desk: Desk) -> None:
    with receiver(in_turn(*[500] * 9, 200)) as hook:
        made = desk.hook("a", hook.url)
        desk.say("a", "document.live")
        desk.sender.run_once()
        for number, pause in enumerate(SCHEDULE_S[1:], start=1):
            assert len(hook.messages) == number
            desk.later(pause - 1)
            assert len(hook.messages) == number, "not before it is due"
            desk.later(pause * JITTER + 2)
        [delivery] = desk.of("a").deliveries(made.row.id, limit=10)[0]
        assert (delivery.state, delivery.attempts, delivery.last_status, delivery.last_error) == ("delivered", 10, 200, None)
        assert len(hook.messages) == 10
        assert len({message.id for message in hook.messages}) == 1
        assert len({message.headers["webhook-timestamp"] for message in hook.messages}) == 10
        endpoint = desk.of("a").get(made.row.id)
        assert (endpoint.failures, endpoint.failing_since, endpoint.disabled_reason) == (0, None, None)
        desk.say("a", "document.live")
        desk.sender.run_once()
        assert len(hook.messages) == 11


def _exhaust(desk: Desk) -> None:
    """All tries of what is due."""
    for pause in SCHEDULE_S:
        desk.later(pause * (1 + JITTER) + 1)


@ON_SQLITE
def test_a_dead_letter_is_listed_and_comes_when_it_is_replayed(desk: Desk) -> None:
    with receiver(in_turn(503)) as hook:
        made = desk.hook("a", hook.url)
        desk.say("a", "document.live")
        _exhaust(desk)
        [letter] = desk.of("a").deliveries(made.row.id, state="failed", limit=10)[0]
        assert (letter.attempts, letter.last_status, letter.last_error) == (10, 503, "The receiver answered 503.")
        desk.later(30 * 3600)
        assert len(hook.messages) == 10, "nobody tries it again"
        hook.answers = in_turn(200)
        with pytest.raises(NotFound):
            desk.of("b").replay_one(made.row.id, letter.id)
        assert desk.of("a").replay_one(made.row.id, letter.id).state == "pending"
        desk.sender.run_once()
        assert [message.id for message in hook.messages] == [letter.event_id] * 11
        assert desk.states("a", made) == ["delivered"]


@ON_SQLITE
def test_where_nothing_succeeds_for_days_is_given_up(desk: Desk) -> None:
    with receiver(in_turn(500)) as hook:
        made = desk.hook("a", hook.url, "*")
        desk.say("a", "document.live")
        _exhaust(desk)
        assert desk.of("a").get(made.row.id).disabled_reason is None, "one dead letter is no reason"
        desk.later(2 * 24 * 3600)
        desk.say("a", "document.live")
        desk.sender.run_once()
        assert desk.of("a").get(made.row.id).disabled_reason == "failing"


def test_410_disables_with_an_event_and_a_reason(desk: Desk) -> None:
    with receiver(in_turn(410)) as hook, receiver() as watch:
        made, _ = desk.hook("a", hook.url), desk.hook("a", watch.url, "webhook.disabled")
        desk.say("a", "document.live", "document.deleted")
        for _ in range(3):
            desk.later(600)
        endpoint = desk.of("a").get(made.row.id)
        assert (endpoint.disabled_reason, len(hook.messages)) == ("gone", 1)
        assert desk.states("a", made) == ["failed", "pending"]
        assert [(each.event["subject"], each.event["data"]) for each in watch.messages] == [(made.row.id, {"reason": "gone"})]
        desk.say("a", "document.live", subject="meanwhile")
        for refused in (desk.of("a").test, lambda name: desk.of("a").replay(name, since=0, until=None)):
            with pytest.raises(Conflict):
                refused(made.row.id)
        hook.answers = in_turn(200)
        desk.of("a").update(made.row.id, enabled=True)
        desk.say("a", "document.live", subject="after")
        desk.later(1)
        assert [each.event["subject"] for each in hook.messages[1:]] == ["doc_1", "after"], "what waited, and what is new"


@ON_SQLITE
def test_redirects_are_failures_and_are_not_followed(desk: Desk) -> None:
    with receiver() as target:
        with receiver(lambda _message: (307, {"Location": target.url})) as hook:
            made = desk.hook("a", hook.url)
            desk.say("a", "document.live")
            desk.sender.run_once()
        [delivery] = desk.of("a").deliveries(made.row.id, limit=10)[0]
        assert (delivery.state, delivery.last_status, target.messages) == ("pending", 307, [])


@ON_SQLITE
def test_silence_is_a_failure_within_the_time_that_a_receiver_has(database: Database, clock: SetClock) -> None:
    desk, released = Desk(database, clock, seconds=0.3), threading.Event()

    def waits(_message: Message) -> int:
        released.wait(20)
        return 200

    with receiver(waits) as slow, receiver() as quick:
        made = desk.hook("a", slow.url)
        desk.hook("a", quick.url)
        desk.say("a", "document.live")
        desk.sender.run_once()
        [delivery] = desk.of("a").deliveries(made.row.id, limit=10)[0]
        assert delivery.state == "pending"
        assert "took too long" in (delivery.last_error or "")
        assert len(quick.messages) == 1
        released.set()
    desk.close()


@ON_SQLITE
def test_a_slow_receiver_holds_up_itself_only(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four threads a tenant has two, however many slow endpoints it makes."""
    monkeypatch.setattr(sender, "LOOK_EVERY_S", 0.05)
    released = threading.Event()

    def waits(_message: Message) -> int:
        released.wait(20)
        return 200

    with receiver(waits) as slow, receiver() as quick:
        for _ in range(5):
            desk.hook("a", slow.url)
        desk.hook("b", quick.url)
        desk.say("a", "document.live")
        desk.sender.start()
        wait_for(lambda: len(slow.messages) == 2, what="the share of the slow one")
        for number in range(1, 4):
            desk.say("b", "document.live", subject=f"doc_{number}")
            wait_for(lambda number=number: len(quick.messages) == number, what="the other's event")  # type: ignore[misc]
        assert len(slow.messages) == 2
        released.set()
        wait_for(lambda: len(slow.messages) == 5, what="the rest")


@ON_SQLITE
def test_retry_after_is_kept_to(desk: Desk) -> None:
    def busy(_message: Message) -> tuple[int, dict[str, str]]:
        return 429, {"Retry-After": "100"}

    with receiver(busy) as hook:
        desk.hook("a", hook.url)
        desk.say("a", "document.live", "document.deleted")
        desk.sender.run_once()
        desk.later(99)
        assert len(hook.messages) == 1, "neither this one nor another of the same endpoint"
        desk.later(1)
        assert len(hook.messages) == 2


@ON_SQLITE
def test_names_that_turn_inside_are_connected_to_by_nobody(database: Database, clock: SetClock) -> None:
    """The name was public when the webhook was made, and at the first try; each try looks it up and checks it."""
    tried: list[str] = []

    def rebinding(host: str, _port: int) -> list[str]:
        tried.append(host)
        return ["127.0.0.1"] if len(tried) % 2 else ["127.0.0.1", "93.184.215.14"]

    desk = Desk(database, clock, allowed=(), resolve=rebinding)
    with receiver() as inside:
        made = desk.hook("a", f"http://example.org:{inside.port}/")
        desk.say("a", "document.live")
        _exhaust(desk)
        [delivery] = desk.of("a").deliveries(made.row.id, limit=10)[0]
        assert (delivery.state, delivery.last_status) == ("failed", None)
        assert delivery.last_error == "The URL does not lead to a public address."
        assert (len(tried), inside.messages) == (10, [])
        for url in (inside.url, "http://[::1]/", "ftp://example.org/", "https://user@example.org/"):
            with pytest.raises(UrlRefused):
                desk.hook("a", url)
    desk.close()


def test_events_of_one_kind_and_subject_are_gathered_if_asked_for(desk: Desk) -> None:
    with receiver() as hook, receiver() as each:
        made = desk.hook("a", hook.url, coalesce_seconds=30)
        desk.hook("a", each.url)
        for version in range(1, 4):
            desk.say("a", "document.live", version=version)
            desk.say("a", "document.live", subject="doc_2", version=10 * version)
            desk.later(5)
        desk.say("b", "document.live", version=99)
        assert (len(each.messages), hook.messages) == (6, [])
        desk.later(15)
        assert [(message.event["subject"], message.event["data"]) for message in hook.messages] == [
            ("doc_1", {"version": 3}),
            ("doc_2", {"version": 30}),
        ]
        assert {row.coalesced for row in desk.of("a").deliveries(made.row.id, limit=10)[0]} == {2}
        desk.say("a", "document.live", version=4)
        desk.later(30)
        assert hook.messages[-1].event["data"] == {"version": 4}
        assert len({message.id for message in hook.messages}) == 3


def test_an_event_that_joins_while_its_delivery_is_sent_is_sent_too(desk: Desk) -> None:
    """One sender was silent so long that another took over: what it sent is not what the delivery stands for by now."""
    made = desk.hook("a", NOWHERE, coalesce_seconds=30)
    desk.say("a", "document.live", version=1)
    lease = desk.outbox.claim(context_of("a"), made.row.id)
    assert lease is not None
    assert desk.outbox.claim(context_of("a"), made.row.id) is None, "one at a time"
    desk.outbox.place(lease)
    desk.clock.now += 30_000
    due = desk.outbox.next(lease)
    assert due is not None
    desk.clock.now += 1000 * LEASE_S
    other = desk.outbox.claim(context_of("a"), made.row.id)
    assert other is not None
    desk.outbox.record(lease, due.delivery, Outcome(200))
    assert desk.outbox.next(lease) is None
    assert desk.states("a", made) == ["pending"], "a late owner writes nothing"
    again = desk.outbox.next(other)
    assert again is not None
    desk.outbox.record(other, again.delivery, Outcome(200))
    assert desk.states("a", made) == ["delivered"]


def test_a_range_of_time_is_replayed_under_the_same_ids(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_outbox, "PAGE", 2)
    with receiver() as hook:
        made = desk.hook("a", hook.url)
        for number in range(6):
            desk.say("a", "document.live", "key.created", subject=f"doc_{number}")
            desk.say("b", "document.live", subject="foreign")
            desk.clock.now += 1000
        desk.sender.run_once()
        first = [message.id for message in hook.messages]
        assert len(first) == 6
        start = desk.clock.now - 6000
        with pytest.raises(NotFound):
            desk.of("b").replay(made.row.id, since=0, until=None)
        row = desk.of("a").replay(made.row.id, since=start + 1000, until=start + 4000)
        assert row.replay_until is not None
        with pytest.raises(Conflict):
            desk.of("a").replay(made.row.id, since=0, until=None)
        desk.sender.run_once()
        assert [message.id for message in hook.messages[6:]] == first[1:4]
        assert desk.of("a").get(made.row.id).replay_until is None
        with pytest.raises(InvalidInput):
            desk.of("a").replay(made.row.id, since=5, until=5)


def test_events_that_are_not_delivered_yet_are_not_purged(desk: Desk) -> None:
    log = EventLog(desk.database, desk.clock)
    with receiver() as hook:
        made = desk.hook("a", hook.url)
        desk.say("a", "document.live", "document.deleted")
        desk.say("b", "document.live")
        desk.clock.now += 40 * DAY_MS
        assert log.purge(30) == 1, "the other tenant's; the webhook was told of nothing yet"
        desk.sender.run_once()
        assert hook.types == ["document.live", "document.deleted"]
        assert log.purge(30) == 3
        assert desk.outbox.purge(30) == 0
        desk.clock.now += 31 * DAY_MS
        assert (desk.outbox.purge(30), desk.states("a", made)) == (2, [])


@ON_SQLITE
def test_a_disabled_endpoint_holds_nothing_back_for_ever(desk: Desk) -> None:
    made, log = desk.hook("a", "http://127.0.0.1:9/"), EventLog(desk.database, desk.clock)
    desk.say("a", "document.live")
    desk.sender.run_once()
    desk.of("a").update(made.row.id, enabled=False)
    desk.say("a", "document.live")
    desk.clock.now += 31 * DAY_MS
    assert desk.outbox.purge(30) == 1
    assert log.purge(30) == 5


def test_what_does_not_fit_waits_in_the_outbox(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_outbox, "PAGE", 3)
    monkeypatch.setattr(webhook_outbox, "MAX_PENDING", 4)
    with receiver(in_turn(500)) as hook:
        made = desk.hook("a", hook.url)
        desk.say("a", *["document.live"] * 20)
        for _ in range(5):
            desk.later(61)
        assert len(desk.states("a", made)) == 5, "a page is begun while there is room"
        hook.answers = in_turn(200)
        for _ in range(10):
            desk.later(301 * 1.1)
        assert desk.states("a", made) == ["delivered"] * 20


@ON_SQLITE
def test_a_list_of_a_rare_state_goes_on_behind_what_it_looked_at(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    made, other = desk.hook("a", NOWHERE), desk.hook("b", NOWHERE)
    for name in "ab":
        desk.say(name, *["document.live"] * 9)
    for ready in desk.outbox.ready(9):
        lease = desk.outbox.claim(context_of(ready.tenant_id), ready.endpoint_id)
        assert lease is not None
        desk.outbox.place(lease)
    everything, following = desk.of("a").deliveries(made.row.id, limit=10)
    assert (len(everything), following) == (9, None)
    failed = [row.id for row in everything if row.seq % 4 == 0]
    with desk.database.system_write() as session:
        session.execute(sa.update(WebhookDelivery).where(col(WebhookDelivery.id).in_(failed)).values(state="failed"))

    def listed(state: str | None, limit: int) -> list[str]:
        found, after, pages = list[str](), None, 0
        while pages == 0 or after is not None:
            rows, after = desk.of("a").deliveries(made.row.id, state=state, after=after, limit=limit)
            found, pages = [*found, *(row.id for row in rows)], pages + 1
            assert pages < 20
        return found

    for scanned in (1, 2, 4, 9, 100):
        monkeypatch.setattr(webhooks, "SCANNED", scanned)
        for limit in (1, 3, 9):
            assert listed("failed", limit) == failed
            assert listed("delivered", limit) == []
            assert listed(None, limit) == [row.id for row in everything]
    with pytest.raises(NotFound):
        desk.of("a").deliveries(other.row.id, state="failed", limit=1)


def test_a_clock_that_is_set_back_holds_nothing_up(desk: Desk) -> None:
    with receiver(in_turn(500)) as hook, receiver() as theirs:
        desk.hook("a", hook.url, coalesce_seconds=60)
        desk.hook("b", theirs.url)
        desk.say("a", "document.live")
        desk.later(61)
        assert len(hook.messages) == 1
        hook.answers = in_turn(200)
        desk.clock.now -= 30 * DAY_MS  # the pause, and the next try, are a month ahead now
        desk.sender.run_once()
        assert len(hook.messages) == 2
        [mine] = [one for one in desk.outbox.ready(9) if one.tenant_id == "a"] or [None]
        assert mine is None, "it is left alone like any other where nothing is to be done"
        desk.say("b", "document.live")
        [ready] = desk.outbox.ready(9)
        assert desk.outbox.claim(context_of("b"), ready.endpoint_id)
        assert desk.outbox.claim(context_of("b"), ready.endpoint_id) is None
        desk.clock.now -= DAY_MS  # whoever had it then died
        desk.sender.run_once()
        assert len(theirs.messages) == 1
        desk.say("a", "document.live")  # its time is before that of what was sent
        desk.later(61)
        assert len(hook.messages) == 3


def test_a_test_is_sent_once_whatever_is_asked_for(desk: Desk) -> None:
    with receiver(in_turn(500, 200)) as hook:
        made = desk.hook("a", hook.url, "budget.*")
        with pytest.raises(NotFound):
            desk.of("b").test(made.row.id)
        desk.of("a").test(made.row.id)
        desk.sender.run_once()
        desk.later(9999)
        assert desk.states("a", made) == ["failed"]
        desk.of("a").test(made.row.id)
        desk.sender.run_once()
        assert hook.types == ["webhook.test"] * 2
        assert hook.messages[1].event == {**hook.messages[1].event, "subject": made.row.id, "data": {}}
        assert sorted(desk.states("a", made)) == ["delivered", "failed"]


@ON_SQLITE
def test_secrets_are_sealed_and_both_sign_while_they_overlap(desk: Desk) -> None:
    with receiver() as hook:
        made = desk.hook("a", hook.url)
        with pytest.raises(NotFound):
            desk.of("b").rotate(made.row.id, overlap_hours=1)
        renewed = desk.of("a").rotate(made.row.id, overlap_hours=1)
        desk.say("a", "document.live")
        desk.sender.run_once()
        desk.later(3600)
        desk.say("a", "document.live")
        desk.sender.run_once()
        for message, secrets in zip(hook.messages, ((made, renewed), (renewed,)), strict=True):
            at = int(message.headers["webhook-timestamp"])
            for each in secrets:
                verify(message.body, message.headers, each.secret, now=at)
            assert len(message.headers["webhook-signature"].split()) == len(secrets)
        with desk.database.system_read() as session:
            sealed = [row.sealed for row in session.scalars(select(TenantSecret))]
        assert len(sealed) == 1
        assert not any(each.secret.encode() in sealed[0] for each in (made, renewed))


@ON_SQLITE
def test_a_secret_that_cannot_be_opened_is_a_failure_that_is_given_up_one_day(desk: Desk) -> None:
    with receiver() as there:
        sealed, other = desk.hook("a", there.url), desk.hook("b", there.url)
        with desk.database.system_write() as session:
            session.execute(sa.update(TenantSecret).where(col(TenantSecret.tenant_id) == "a").values(sealed=b"x" * 99))
        for tenant in "ab":
            desk.say(tenant, "document.live")
        desk.later(0)
        assert (desk.states("a", sealed), desk.states("b", other)) == (["pending"], ["delivered"])
        [delivery] = desk.of("a").deliveries(sealed.row.id, limit=10)[0]
        assert (delivery.attempts, delivery.last_error) == (1, "The service cannot open the webhook's secret.")
        for _ in range(10):
            desk.say("a", "document.live")
            desk.later(24 * 3600)
        assert desk.of("a").get(sealed.row.id).disabled_reason == "failing"
        assert len(there.messages) == 1


def test_what_is_deleted_is_gone_whole(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "DELETED_ROWS", 2)
    made, other = desk.hook("a", "http://127.0.0.1:9/"), desk.hook("b", NOWHERE)
    desk.say("a", *["document.live"] * 5)
    desk.sender.run_once()
    with pytest.raises(NotFound):
        desk.of("b").delete(made.row.id)
    desk.of("a").delete(made.row.id)
    with desk.database.system_read() as session:
        assert [row.id for row in session.scalars(select(WebhookEndpoint))] == [other.row.id]
        assert session.scalars(select(WebhookDelivery)).all() == []
        assert [row.tenant_id for row in session.scalars(select(TenantSecret))] == ["b"]
    with pytest.raises(NotFound):
        desk.of("a").get(made.row.id)


@ON_SQLITE
def test_what_is_changed_holds_from_the_next_message_on(desk: Desk) -> None:
    with receiver() as first, receiver() as second:
        made = desk.hook("a", first.url)
        with pytest.raises(NotFound):
            desk.of("b").update(made.row.id, url=second.url)
        desk.of("a").update(made.row.id, url=second.url, events=["key.*"], description="x", coalesce_seconds=0)
        desk.say("a", "document.live", "key.created")
        desk.sender.run_once()
        assert (first.messages, second.types) == ([], ["key.created"])
        desk.of("a").update(made.row.id, enabled=False)
        desk.say("a", "key.created")
        desk.later(10)
        assert len(second.messages) == 1


def test_a_tenant_has_a_bounded_number_by_however_many_at_once(desk: Desk) -> None:
    for _ in range(MAX_ENDPOINTS - 2):
        desk.hook("a", NOWHERE)
    start = threading.Barrier(6)

    def another(_number: int) -> bool:
        start.wait(20)
        try:
            desk.hook("a", NOWHERE)
        except InvalidInput:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        made = [*pool.map(another, range(6))]
    assert sum(made) == 2
    desk.hook("b", NOWHERE)
    assert len(desk.of("a").list(after=None, limit=100)) == MAX_ENDPOINTS


def test_a_tenant_that_is_being_deleted_makes_none(desk: Desk) -> None:
    Deletions(desk.database, desk.clock).request("a")
    with pytest.raises(Unauthenticated):
        desk.hook("a", NOWHERE)
    desk.hook("b", NOWHERE)
    assert desk.of("a").list(after=None, limit=100) == []


def test_a_tenant_that_is_gone_keeps_no_other_waiting(desk: Desk) -> None:
    def found(tenant_id: str, whom: str) -> TenantContext:
        if tenant_id == "a":
            raise NotFound("There is no such tenant.")
        return context_of(tenant_id, whom)

    desk.sender._context_of = found
    with receiver() as orphaned, receiver() as well:
        desk.hook("a", orphaned.url)
        desk.hook("b", well.url)
        desk.say("a", "document.live")
        desk.say("b", "document.live")
        desk.sender.run_once()
        assert (well.types, orphaned.types) == (["document.live"], [])
