"""The table by clip; the rest of the text is looked at in test_pipelines_evaluate.py."""

from mmstream.media import NS_PER_SEC
from mmstream.pipelines.evaluate import EventSpan, Report, Timeline, TruthSpan
from mmstream.pipelines.scoreboard import CELLS, markdown
from mmstream.pipelines.tally import Match, score
from mmstream.pipelines.truth import Judged


def timeline(file: str, label: str, *, found: tuple[bool, ...] = (), n_false: int = 0) -> Timeline:
    return Timeline(
        file=file,
        label=label,
        duration_s=10,
        truths=tuple(TruthSpan(start_s=i, end_s=i + 0.5, found=one) for i, one in enumerate(found)),
        unclear=(),
        events=tuple(
            EventSpan(start_s=8, end_s=9, decided_s=8, top_score=0.9, verdict="false_alarm")
            for _ in range(n_false)
        ),
    )


def report(*timelines: Timeline) -> Report:
    labels = dict.fromkeys(one.label for one in timelines)
    scores = tuple(
        score(label, [Match(Judged("a", label, (), ()), NS_PER_SEC, (), (), 0)]) for label in labels
    )
    return Report(slack_s=0.5, n_files=1, media_s=10, labels=scores, timelines=timelines)


def by_clip(*timelines: Timeline) -> list[str]:
    text = markdown(report(*timelines))
    assert text.endswith(CELLS)
    lines = text.removesuffix(CELLS).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| clip |"))
    return lines[first:-1]


def test_each_clip_says_what_was_found_and_what_was_made_up() -> None:
    assert by_clip(
        timeline("a/one.mp4", "loud", found=(True, False), n_false=2),
        timeline("a/one.mp4", "motion"),
        timeline("b/two.mp4", "motion", n_false=1),
    ) == [
        "| clip | loud | motion |",
        "| --- | --- | --- |",
        "| a/one.mp4 | 1/2 **+2** | - |",
        "| b/two.mp4 |   | **+1** |",
    ]


def test_clips_of_a_folder_share_a_row_where_the_same_is_to_be_said() -> None:
    assert by_clip(
        timeline("a/one.mp4", "loud"),
        timeline("a/two.mp4", "loud"),
        timeline("a/three.mp4", "loud", found=(True,)),
        timeline("b/four.mp4", "loud"),
    )[2:] == ["| a: 2 clips | - |", "| a/three.mp4 | 1/1 |", "| b/four.mp4 | - |"]
