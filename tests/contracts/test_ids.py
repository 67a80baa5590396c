"""Ids are ordered by time, and the row of a given id is the same for ever."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.ids import foreign_id, is_storable, new_id, new_ids, row_id, unix_seconds, uuid7

moments = st.integers(0, 2**48 * 1_000_000 - 1)
noise = st.binary(min_size=8, max_size=8)

#: Rows are found under these keys; a change here loses every row of a foreign client.
PINNED = {
    "": "f215ca2e-e6ac-5429-be34-9ee52d2138a6",
    "order-4711": "d2e90113-8500-5f1c-b92d-e3f0612e9123",
    "a": "505397ba-96f7-5be6-adab-b3f7d3efcbd8",
    "Grüße": "3cf5b435-3c66-52e4-9283-a94601f16e3b",
    "6F1A9D52-5E07-5D0C-9A3E-2F0F6F1C7B11": "b2fed485-c874-586f-b4d0-95eaf79f1c83",
    "6f1a9d525e075d0c9a3e2f0f6f1c7b11": "fa30a9a0-3711-5f25-be1f-2e87862e214c",
    "6f1a9d52-5e07-5d0c-9a3e-2f0f6f1c7b11": "6f1a9d52-5e07-5d0c-9a3e-2f0f6f1c7b11",
    "00000000-0000-0000-0000-000000000000": "00000000-0000-0000-0000-000000000000",
    "0190163d-8694-739b-aea5-966c26f8ad91": "0190163d-8694-739b-aea5-966c26f8ad91",
}


@pytest.mark.parametrize("request_id", PINNED)
def test_the_row_of_an_id_never_changes(request_id: str) -> None:
    assert str(row_id(request_id)) == PINNED[request_id]


@given(moments, noise)
def test_a_uuid7_has_the_version_and_variant_of_the_rfc(unix_ns: int, random: bytes) -> None:
    made = uuid7(unix_ns, random)
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == unix_ns // 1_000_000


def test_the_uuid7_of_the_rfc_has_the_time_of_the_rfc() -> None:
    # RFC 9562, appendix A.6: 2022-02-22 14:22:22 -05:00.
    made = uuid7(1_645_557_742_000_000_000, bytes.fromhex("18c4dc0c0c07398f"))
    assert str(made).startswith("017f22e2-79b0-7000-")
    assert unix_seconds(made) == 1_645_557_742.0


@given(st.tuples(moments, moments), noise, noise)
def test_ids_are_ordered_by_time_to_a_quarter_of_a_microsecond(times: tuple[int, int], one: bytes, two: bytes) -> None:
    early, late = min(times), max(times)
    if late - early >= 250:
        assert uuid7(early, one) < uuid7(late, two)
        assert str(uuid7(early, one)) < str(uuid7(late, two))


@given(moments, noise, noise)
def test_randomness_makes_ids_of_one_moment_differ(unix_ns: int, one: bytes, two: bytes) -> None:
    # 62 of the 64 bits are used.
    assert (uuid7(unix_ns, one) == uuid7(unix_ns, two)) == (int.from_bytes(one) >> 2 == int.from_bytes(two) >> 2)


def test_fresh_ids_are_canonical_and_all_different() -> None:
    ids = [new_id(), *new_ids(1000), new_id()]
    assert len(set(ids)) == len(ids)
    assert all(str(uuid.UUID(fresh)) == fresh and uuid.UUID(fresh).version == 7 for fresh in ids)
    assert new_ids(0) == []


@given(st.uuids())
def test_a_uuid_is_its_own_row_and_needs_no_foreign_id(identity: uuid.UUID) -> None:
    assert row_id(str(identity)) == identity
    assert foreign_id(str(identity)) is None


@given(st.text(st.characters(codec="utf-8")))
def test_any_other_id_maps_as_uuid5_does(text: str) -> None:
    if row_id(text).version == 5 and foreign_id(text) is not None:
        assert row_id(text) == uuid.uuid5(uuid.UUID("6f1a9d52-5e07-5d0c-9a3e-2f0f6f1c7b11"), text)


@given(st.lists(st.text(st.characters(), max_size=40), unique=True))
def test_different_ids_never_share_a_row(texts: list[str]) -> None:
    assert len({row_id(text) for text in texts}) == len(texts)


@given(st.text(st.characters(), max_size=40))
def test_a_foreign_id_is_what_postgres_can_hold(text: str) -> None:
    kept = foreign_id(text)
    if kept is not None:
        kept.encode()
        assert "\0" not in kept
        assert len(kept) == len(text)


def test_a_foreign_id_is_kept_as_it_is_but_for_what_postgres_refuses() -> None:
    assert foreign_id("order-4711") == "order-4711"
    assert foreign_id("a\0b\ud800c😀") == "a\ufffdb\ufffdc😀"
    assert len(foreign_id("x" * 1_000_000) or "") == 1000


@pytest.mark.parametrize("identity", [uuid.uuid4(), uuid.uuid5(uuid.NAMESPACE_DNS, "x"), uuid.UUID(int=0)])
def test_only_a_uuid7_tells_its_time(identity: uuid.UUID) -> None:
    assert unix_seconds(identity) is None


@given(moments, noise)
def test_a_uuid7_tells_its_time_to_the_millisecond(unix_ns: int, random: bytes) -> None:
    assert unix_seconds(uuid7(unix_ns, random)) == unix_ns // 1_000_000 / 1000


@given(st.text(st.characters()))
def test_a_text_is_storable_if_postgres_can_hold_it(text: str) -> None:
    holds_surrogate = any("\ud800" <= char <= "\udfff" for char in text)
    assert is_storable(text) is not ("\0" in text or holds_surrogate)


@pytest.mark.parametrize("text", ["a\0", "\ud800", "ü\udfff"])
def test_nul_and_lone_surrogates_are_not_storable(text: str) -> None:
    assert not is_storable(text)
