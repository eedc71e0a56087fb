"""Webhooks without a database: which events, when again, and signatures that others' libraries and ours verify."""

from __future__ import annotations

import base64
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from standardwebhooks import WebhookVerificationError as OtherError

from carrel_client import Event, WebhookVerificationError
from carrel_client.webhooks import TOLERANCE_S, verify
from config.errors import InvalidInput
from tenants.webhooks.rules import GIVE_UP_MS, JITTER, MAX_PAUSE_S, SCHEDULE_S, check, gives_up, next_try, pause_ms, wants
from tenants.webhooks.signing import MAX_FORMER, SigningSecret, dumped, loaded, new_secret, rotated, signed_headers
from tests.unit.conftest import NOON

#: Published with the specification's libraries.
VECTOR = SigningSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
BODY = b'{"id":"evt_1","type":"document.live","subject":"doc_1","at":"2026-03-10T12:00:00.000Z","data":{"version":2}}'
NOW_S = NOON / 1000


@pytest.mark.parametrize(
    ("globs", "type_", "wanted"),
    [
        (["*"], "document.live", True),
        (["document.*"], "document.live", True),
        (["document.*"], "documents.live", False),
        (["document.live"], "document.live", True),
        (["document.live"], "document.failed", False),
        (["*.failed"], "job.failed", True),
        (["*.failed"], "job.queued", False),
        (["*.*"], "key.created", True),
        (["key.*", "job.failed"], "job.failed", True),
        (["key.*", "job.failed"], "job.queued", False),
    ],
)
def test_globs_name_events(globs: list[str], type_: str, wanted: bool) -> None:
    assert wants(globs, type_) is wanted


@pytest.mark.parametrize(
    "glob", ["", "document", "document.", ".live", "doc*", "a.b.c", "Document.live", "**", "%", "a" * 33 + ".b"]
)
def test_other_patterns_are_refused(glob: str) -> None:
    with pytest.raises(InvalidInput):
        check([glob], "", 0)


@given(st.integers(1, 12), st.integers(0, 2**48), st.randoms())
def test_a_try_comes_as_scheduled_or_a_little_later(attempts: int, now: int, chance: random.Random) -> None:
    again = next_try(attempts, now, chance)
    if attempts >= len(SCHEDULE_S):
        assert again is None
    else:
        wait = 1000 * SCHEDULE_S[attempts]
        assert again is not None
        assert wait <= again - now <= wait * (1 + JITTER) + 1


def test_the_schedule_is_the_recommended_one() -> None:
    assert SCHEDULE_S == (0, 5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)


def test_what_fails_is_left_alone_longer_and_longer_up_to_a_bound() -> None:
    assert [pause_ms(failures, None) // 1000 for failures in (1, 2, 3, 4, 7, 10_000)] == [1, 2, 4, 8, 60, MAX_PAUSE_S]
    assert pause_ms(1, 120.0) == 120_000
    assert pause_ms(1, 1e5) == 3_600_000


def test_an_endpoint_is_given_up_after_days_and_tries() -> None:
    assert [gives_up(10, GIVE_UP_MS), gives_up(10, GIVE_UP_MS - 1), gives_up(9, 2 * GIVE_UP_MS)] == [True, False, False]


def test_the_published_vector() -> None:
    body = b'{"test": 2432232314}'
    headers = signed_headers([VECTOR], message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", at=1614265330_999, body=body)
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_the_standard_library_of_webhooks_verifies_ours() -> None:
    secret, other = new_secret(), new_secret()
    headers = signed_headers([secret], message_id="evt_1", at=round(time.time() * 1000), body=BODY)
    assert Webhook(secret.secret).verify(BODY, headers)["subject"] == "doc_1"
    with pytest.raises(OtherError):
        Webhook(other.secret).verify(BODY, headers)
    with pytest.raises(OtherError):
        Webhook(secret.secret).verify(BODY.replace(b"doc_1", b"doc_2"), headers)


def test_former_secrets_sign_until_their_overlap_ends() -> None:
    first = [new_secret()]
    second = rotated(first, NOON, 3_600_000)
    assert loaded(dumped(second)) == second
    for at, good, bad in ((NOON, [first[0], second[0]], []), (NOON + 3_600_000, [second[0]], [first[0]])):
        headers = signed_headers(second, message_id="evt_1", at=at, body=BODY)
        for each in good:
            assert verify(BODY, headers, each.secret, now=at / 1000) == Event(
                "evt_1", "document.live", "doc_1", "2026-03-10T12:00:00.000Z", {"version": 2}
            )
        for each in bad:
            with pytest.raises(WebhookVerificationError):
                verify(BODY, headers, each.secret, now=at / 1000)
    assert len(rotated(second, NOON, 0)) == 1, "without an overlap no former secret signs any more"
    for _ in range(2 * MAX_FORMER):
        second = rotated(second, NOON, 3_600_000)
    assert len(second) == 1 + MAX_FORMER


def _signed(**changes: str) -> dict[str, str]:
    return {**signed_headers([VECTOR], message_id="evt_1", at=NOON, body=BODY), **changes}


def test_our_helper_takes_what_is_genuine() -> None:
    for headers in (_signed(), {name.title(): value for name, value in _signed().items()}):
        assert verify(BODY, headers, VECTOR.secret, now=NOW_S).type == "document.live"
    assert verify(BODY.decode(), _signed(), [new_secret().secret, VECTOR.secret], now=NOW_S).id == "evt_1"
    assert verify(BODY, _signed(), VECTOR.secret.removeprefix("whsec_"), now=NOW_S - TOLERANCE_S).id == "evt_1"
    other = signed_headers([new_secret()], message_id="evt_1", at=NOON, body=BODY)["webhook-signature"]
    both = {**_signed(), "webhook-signature": f"v2,x {other} {_signed()['webhook-signature']}"}
    assert verify(BODY, both, VECTOR.secret, now=NOW_S).id == "evt_1"


@pytest.mark.parametrize(
    ("body", "headers", "now_s"),
    [
        (BODY + b" ", _signed(), NOW_S),
        (BODY, _signed(**{"webhook-id": "evt_2"}), NOW_S),
        (BODY, _signed(**{"webhook-timestamp": str(int(NOW_S) + 1)}), NOW_S),
        (BODY, _signed(**{"webhook-timestamp": "¹"}), NOW_S),
        (BODY, _signed(**{"webhook-timestamp": "-1"}), NOW_S),
        (BODY, _signed(**{"webhook-signature": ""}), NOW_S),
        (BODY, _signed(**{"webhook-signature": "v1,é v1, v1"}), NOW_S),
        (BODY, _signed(**{"webhook-signature": "v1,\udcff"}), NOW_S),
        (BODY, _signed(**{"webhook-id": "\udcff"}), NOW_S),
        (BODY, {}, NOW_S),
        (BODY, _signed(), NOW_S + TOLERANCE_S + 1),
        (BODY, _signed(), NOW_S - TOLERANCE_S - 1),
    ],
    ids=["body", "id", "time", "digits", "negative", "none", "nonsense", "no text", "id of no text", "empty", "old", "early"],
)
def test_our_helper_refuses_the_rest(body: bytes, headers: dict[str, str], now_s: float) -> None:
    with pytest.raises(WebhookVerificationError):
        verify(body, headers, VECTOR.secret, now=now_s)


def test_our_helper_refuses_secrets_and_bodies_that_are_none() -> None:
    for secret in ("whsec_", "whsec_!", "whsec_é", "whsec_" + base64.b64encode(b"x" * 32).decode()):
        with pytest.raises(WebhookVerificationError):
            verify(BODY, _signed(), secret, now=NOW_S)
    for body in (b"[]", b"{", b"{}", b"\xff"):
        headers = signed_headers([VECTOR], message_id="evt_1", at=NOON, body=body)
        with pytest.raises(WebhookVerificationError):
            verify(body, headers, VECTOR.secret, now=NOW_S)
