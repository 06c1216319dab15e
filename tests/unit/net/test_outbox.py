"""The outbox: what goes in comes out, in order, whatever its pieces are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gtask.net.outbox import PIECE_BYTES, WRITE_BYTES, Outbox

sizes = st.integers(1, 100) | st.integers(PIECE_BYTES - 2, PIECE_BYTES + 2) | st.just(700_000)


@given(st.lists(st.tuples(sizes, st.integers(0, 400_000), st.booleans()), min_size=1, max_size=8))
def test_any_pieces_come_out_in_order(steps):
    sent, wanted = b"", b""
    outbox = None
    for number, (size, most, is_mutable) in enumerate(steps):
        data = bytes([number]) * size
        wanted += data
        given_data = bytearray(data) if is_mutable else data
        if outbox is None:
            outbox = Outbox(given_data, 0)
        else:
            outbox.append(given_data)
        if is_mutable:
            given_data[:] = b"?" * size  # it is ours no more
        part = bytes(outbox.front())[:most]
        assert len(part) <= WRITE_BYTES
        outbox.drop(len(part))
        sent += part
        assert outbox.size == len(wanted) - len(sent)
        if not outbox.size:
            outbox = None
    while outbox is not None and outbox.size:
        part = bytes(outbox.front())
        outbox.drop(len(part))
        sent += part
    assert sent == wanted


def test_a_part_of_the_first_may_have_been_sent():
    outbox = Outbox(b"x" * 100_000, 99_990)
    assert outbox.size == 10
    outbox.append(b"behind")
    assert bytes(outbox.front()) == b"x" * 10


def test_small_pieces_are_put_together():
    outbox = Outbox(b"a", 0)
    for _ in range(999):
        outbox.append(b"a")
    assert bytes(outbox.front()) == b"a" * 1000
