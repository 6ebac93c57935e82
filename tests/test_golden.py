"""The golden texts: what each pass makes of a small graph, to the letter."""

from __future__ import annotations

import pytest
from golden_texts import GOLDEN, PASSES, Golden

from gemmc.ir import parse, verify

each_golden = pytest.mark.parametrize("golden", GOLDEN, ids=str)


@each_golden
def test_the_pass_makes_the_text_behind_the_arrow_of_the_one_before(golden: Golden) -> None:
    graph = parse(golden.before)
    after = golden.apply(graph)
    verify(after)
    assert str(after) == golden.after
    assert str(graph) == golden.before, "the pass changed its input"


@each_golden
def test_both_texts_parse_and_print_the_same(golden: Golden) -> None:
    for text in (golden.before, golden.after):
        graph = parse(text)
        verify(graph)
        assert str(graph) == text


def test_every_pass_has_golden_texts() -> None:
    assert {golden.run for golden in GOLDEN} == set(PASSES)
