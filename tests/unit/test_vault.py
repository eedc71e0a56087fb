"""What is sealed opens with the same master key and words, and in no other way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.vault import KEY_BYTES, CannotOpen, Vault

HEAD = 1 + 4 + 12 + 48  # version, key id, wrapped data key: all that re-wrapping looks at
ONE, TWO = (Vault([bytes([number]) * KEY_BYTES]) for number in (1, 2))
BOTH = Vault([bytes([2]) * KEY_BYTES, bytes([1]) * KEY_BYTES])  # after a change from the first to the second

texts, words = st.binary(max_size=200), st.text(max_size=30)


@given(texts, words)
def test_what_was_sealed_opens_and_looks_different_each_time(text: bytes, purpose: str) -> None:
    first, second = (ONE.seal(text, bound_to=purpose) for _ in range(2))
    assert ONE.open(first, bound_to=purpose) == ONE.open(second, bound_to=purpose) == text
    assert first != second
    assert len(text) < 4 or text not in first


@given(texts, words, words)
def test_another_purpose_opens_nothing(text: bytes, purpose: str, other: str) -> None:
    sealed = ONE.seal(text, bound_to=purpose)
    if other != purpose:
        for attempt in (ONE.open, ONE.rewrap):
            with pytest.raises(CannotOpen):
                attempt(sealed, bound_to=other)


@given(texts, words)
def test_another_master_key_opens_nothing(text: bytes, purpose: str) -> None:
    for attempt in (TWO.open, TWO.rewrap):
        with pytest.raises(CannotOpen):
            attempt(ONE.seal(text, bound_to=purpose), bound_to=purpose)


def test_a_flipped_bit_anywhere_is_noticed() -> None:
    sealed = ONE.seal(b"a secret", bound_to="x")
    for place in range(8 * len(sealed)):
        damaged = bytearray(sealed)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(CannotOpen):
            ONE.open(bytes(damaged), bound_to="x")


def test_every_truncation_is_noticed() -> None:
    sealed = ONE.seal(b"a secret", bound_to="x")
    for length in range(len(sealed)):
        for attempt in (ONE.open, BOTH.rewrap) if length < HEAD else (ONE.open,):
            with pytest.raises(CannotOpen):
                attempt(sealed[:length], bound_to="x")


@given(st.binary(max_size=200))
def test_what_was_never_sealed_raises_nothing_else(noise: bytes) -> None:
    head = ONE.seal(b"", bound_to="x")[:5]
    for sealed in (noise, head + noise):
        for attempt in (ONE.open, ONE.rewrap):
            with pytest.raises(CannotOpen):
                attempt(sealed, bound_to="x")


@given(texts, words)
def test_after_a_change_of_keys_the_former_still_opens_until_all_is_rewrapped(text: bytes, purpose: str) -> None:
    old = ONE.seal(text, bound_to=purpose)
    assert BOTH.open(old, bound_to=purpose) == text
    assert (ONE.is_current(old), BOTH.is_current(old)) == (True, False)
    new = BOTH.rewrap(old, bound_to=purpose)
    assert BOTH.is_current(new)
    assert BOTH.open(new, bound_to=purpose) == TWO.open(new, bound_to=purpose) == text
    assert new.endswith(old[HEAD:])  # the content itself was not touched
    with pytest.raises(CannotOpen):
        ONE.open(new, bound_to=purpose)


def test_derived_keys_differ_by_purpose_and_master_key() -> None:
    derived = {vault.derive(purpose) for vault in (ONE, TWO) for purpose in ("tokens", "cursors")}
    assert len(derived) == 4
    assert all(len(key) == KEY_BYTES for key in derived)
    assert BOTH.derive("tokens") == TWO.derive("tokens")
    assert (BOTH.key_id, ONE.key_id != TWO.key_id) == (TWO.key_id, True)


@pytest.mark.parametrize("keys", [[], [b""], [b"x" * 31], [b"x" * 32, b"x" * 33]])
def test_a_key_of_another_length_is_no_master_key(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Vault(keys)
