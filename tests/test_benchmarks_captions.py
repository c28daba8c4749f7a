"""A short form of `mmstream bench captions`."""

import json
from itertools import pairwise
from pathlib import Path

from PIL import Image

from mmstream.benchmarks import captions, captions_picture
from mmstream.benchmarks.captions_script import script
from mmstream.benchmarks.captions_trial import attempt
from mmstream.media import Hypothesis, Span, SpokenWord
from mmstream.recognition.commit import CommitSettings, Evidence, LocalAgreement


def test_a_script_says_the_same_again_and_ends_with_its_words() -> None:
    one, again, other = script(1, 50), script(1, 50), script(2, 50)
    assert one == again != other
    assert sum(len(utterance.words) for utterance in one) == 50
    for utterance in one:
        last = list(utterance.hypotheses(0.25))[-1]
        assert last.is_last
        assert [word.text for word in last.words] == [word.text for word in utterance.words]


def test_a_script_depends_on_what_was_heard_and_not_on_the_steps() -> None:
    utterance = script(3, 20)[0]
    fine, coarse = list(utterance.hypotheses(0.125)), list(utterance.hypotheses(0.25))
    assert fine[1::2][: len(coarse) - 1] == coarse[:-1]


def _said(texts: str, heard: int, *, is_last: bool = False) -> Hypothesis:
    words = tuple(
        SpokenWord(text, Span(nth * 10**9, (nth + 1) * 10**9), 1.0)
        for nth, text in enumerate(texts.split())
    )
    return Hypothesis("s", 0, Span(0, heard * 10**9), words, "en-US", is_last)


def test_wrong_late_and_retracted_words_are_counted() -> None:
    hypotheses = [_said("a", 1), _said("a x", 2), _said("a b c", 4, is_last=True)]
    tried = attempt([hypotheses], lambda: LocalAgreement(2))
    assert (tried.n_words, tried.n_wrong, tried.n_retracted) == (3, 0, 1)
    assert tried.delays_secs == [1.0, 2.0, 1.0]
    hasty = attempt([hypotheses], lambda: LocalAgreement(1))
    assert (hasty.n_wrong, hasty.n_retracted) == (1, 0)
    assert hasty.delays_secs == [0.0, 0.0, 1.0]


def test_evidence_has_fewer_wrong_words_at_equal_delay(tmp_path: Path) -> None:
    figures = captions.measure(tuned_on=(0,), reported_on=(50, 51), n_words=300)
    assert len(figures.beside) == 12
    late = [one for one in figures.beside if one.equal == "p95"]
    assert all(one.fewer_wrong > 0 for one in late if one.agreement.step_secs == 0.25)
    quick = [point for point in figures.curve if point.policy == "evidence"]
    assert all(
        before.wrong_per_600 >= after.wrong_per_600
        and before.delay_mean_secs <= after.delay_mean_secs
        for before, after in pairwise(quick)
        if before.step_secs == after.step_secs
    )
    printed = captions.table(figures)
    assert "evidence 0.75" in printed
    again = captions.Captions.model_validate(json.loads(figures.model_dump_json()))
    captions_picture.draw(again, tmp_path / "captions.png")
    with Image.open(tmp_path / "captions.png") as picture:
        assert picture.width > 800


def test_the_default_is_under_a_second_behind() -> None:
    hypotheses = [list(one.hypotheses(captions.HOP_SECS)) for one in script(60, 300)]
    tried = attempt(hypotheses, lambda: Evidence(CommitSettings().steady_secs))
    assert sorted(tried.delays_secs)[int(0.95 * len(tried.delays_secs))] < 1
    assert tried.n_wrong <= 0.03 * tried.n_words
