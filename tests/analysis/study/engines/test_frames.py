"""Messages through pipes."""

from __future__ import annotations

import io

import pytest

from tokenred.analysis.study.engines.frames import read_frame, write_frame


def test_messages_come_one_by_one() -> None:
    pipe = io.BytesIO()
    sent = [b"", b"one", b"x" * 100_000]
    for content in sent:
        write_frame(pipe, content)
    pipe.seek(0)
    assert [read_frame(pipe) for _ in range(4)] == [*sent, None]


@pytest.mark.parametrize("kept", [0, 3, 8, 10])
def test_a_message_that_was_cut_off_is_none(kept: int) -> None:
    pipe = io.BytesIO()
    write_frame(pipe, b"message")
    assert read_frame(io.BytesIO(pipe.getvalue()[:kept])) is None
