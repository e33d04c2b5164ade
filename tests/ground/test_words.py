"""Numbers as people read them."""

from __future__ import annotations

import pytest

from luthier.ground import words


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        (words.percent(0.8249), "82.5%"),
        (words.percent(0.0), "0.0%"),
        (words.points(-0.031), "−3.1 points"),
        (words.points(0.0), "0.0 points"),
        (words.points(-0.0001), "0.0 points"),
        (words.distance(-0.031), "3.1 points"),
        (words.span(0.766, 0.871), "76.6 to 87.1%"),
        (words.points_span(-0.004, 0.043), "−0.4 to +4.3"),
        (words.seconds(0.0), "0 ms"),
        (words.seconds(0.0994), "99 ms"),
        (words.seconds(0.0996), "0.1 s"),
        (words.seconds(9.94), "9.9 s"),
        (words.seconds(9.96), "10 s"),
        (words.seconds(119.4), "119 s"),
        (words.seconds(119.6), "2 min 00 s"),
        (words.seconds(3599.6), "1 h 00 min"),
        (words.seconds(3 * 3600 + 61), "3 h 01 min"),
        (words.size(999), "999 B"),
        (words.size(1000), "1.0 kB"),
        (words.size(2.43e9), "2.4 GB"),
        (words.size(5e15), "5000.0 TB"),
        (words.exact_size(1.524e9), "1.52 GB"),
        (words.exact_size(9.996e9), "10.0 GB"),
        (words.exact_size(99.96e9), "100 GB"),
        (words.exact_size(812_340_000), "812 MB"),
        (words.exact_size(999.6e6), "1.00 GB"),
        (words.exact_size(512), "512 B"),
        (words.size_change(-1.93e9), "−1.93 GB"),
        (words.size_change(19_560_000), "+19.6 MB"),
        (words.size_change(0), "0 B"),
        (words.change(0.31), "+31 %"),
        (words.change(-0.0318), "−3.2 %"),
        (words.change(0.0996), "+10 %"),
        (words.change(-0.0001), "0 %"),
        (words.change(12.4), "+1240 %"),
        (words.probability(0.0009), "< 0.001"),
        (words.probability(0.034), "0.034"),
        (words.count(1234567.0), "1,234,567"),
        (words.many(1, "item"), "1 item"),
        (words.many(2000, "match", "matches"), "2,000 matches"),
    ],
)
def test_numbers_are_written_as_people_read_them(written: str, wanted: str) -> None:
    assert written == wanted
