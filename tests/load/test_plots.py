"""The pictures: that they are drawn, say what they must, and that no text lies on another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from zmqinfer.load import canvas, latency_picture, plots
from zmqinfer.load.results import (
    Batching,
    BenchResult,
    ClosedLoop,
    Configuration,
    LoadResult,
    Machine,
    OpenLoop,
    Round,
    Versions,
)
from zmqinfer.load.statistics import Latencies

ODD = "a_$very$_^long^_{name}_\u65e5\u672c_" * 4


def scenario(
    name: str,
    latencies_ms: np.ndarray | None = None,
    *,
    model: str = "digits",
    load: ClosedLoop | OpenLoop | None = None,
    rate: float = 20_000.0,
    rounds: int = 3,
    workers: Mapping[str, int] | None = None,
    failures: Mapping[str, int] | None = None,
    batching: Batching | None = None,
) -> LoadResult:
    samples = np.geomspace(0.3, 6.0, 1000) if latencies_ms is None else latencies_ms
    latencies = Latencies.of(samples)
    sent = len(samples) + sum((failures or {}).values())
    wall_s = max(len(samples), 1) / rate
    timed = tuple(Round(sent, wall_s * (1 + 0.02 * i), latencies, failures or {}) for i in range(rounds))
    counts = {"worker_1": 900, "worker_2": 1000, "worker_3": 1100} if workers is None else workers
    return LoadResult(name, model, load or ClosedLoop(50, sent), timed, counts, 14.25, 0.75, batching)


def result(*scenarios: LoadResult, comparison: tuple[LoadResult, ...] = ()) -> BenchResult:
    return BenchResult(
        scenarios,
        comparison,
        Machine(2, "A Processor", 24 * 2**30, "Linux-6.1", "CPython 3.11.8"),
        Versions("0.1.0", "27.0", "4.3.5", "2.0", "1.1"),
        Configuration(3, ("tcp://127.0.0.1:5555",)),
        "2026-01-31T12:00:00+00:00",
        "zmqinfer bench",
    )


def pair(model: str, on_per_s: float, off_per_s: float) -> tuple[LoadResult, ...]:
    rates = {Batching.ON: on_per_s, Batching.OFF: off_per_s}
    return tuple(scenario("batching", model=model, rate=r, batching=b) for b, r in rates.items())


NOTHING = np.array([])
WIDE = np.geomspace(0.1, 10_000.0, 20_000)
SIXTEEN = {f"ip-10-31-224-117.eu-central-1.compute-{i}": 3000 if i == 3 else 40 for i in range(1, 17)}
PRESETS = (
    scenario("light", np.geomspace(0.1, 2.0, 1000), load=ClosedLoop(20, 1000), rate=42_000),
    scenario("medium", np.geomspace(0.2, 4.0, 5000), load=ClosedLoop(50, 5000), rate=59_000),
    scenario("heavy", np.geomspace(0.4, 9.0, 10_000), load=ClosedLoop(100, 10_000), rate=68_000),
)
TYPICAL = result(PRESETS[1], comparison=PRESETS + pair("digits", 60_000, 21_000) + pair("sleep", 2600, 290))
CASES: dict[str, Callable[[], BenchResult]] = {
    "typical": lambda: TYPICAL,
    "three scenarios": lambda: result(*PRESETS, comparison=TYPICAL.comparison),
    "one worker, one round": lambda: result(scenario("one", rounds=1, workers={"only": 1000})),
    "fifteen samples": lambda: result(scenario("few", np.full(15, 10.0), rounds=1)),
    "all at zero": lambda: result(scenario("zero", np.zeros(1000))),
    "all failed": lambda: result(scenario("dead", NOTHING, failures={"UNAVAILABLE": 5000}, workers={})),
    "extremes": lambda: result(
        scenario("wide", WIDE, workers=SIXTEEN, failures={"DEADLINE_EXCEEDED": 910}),
        scenario("dead", NOTHING, failures={"UNAVAILABLE": 5000}, workers={}),
        scenario("open", np.full(3000, 10_000.0), load=OpenLoop(123_456.0, 10.0)),
        comparison=(
            *pair(ODD, 3_000_000, 0.004),
            scenario("b", NOTHING, batching=Batching.ON, failures={"MODEL_ERROR": 500}),
            scenario("b", batching=Batching.OFF),
        ),
    ),
    "six equal loads that fail": lambda: result(
        *(
            scenario(f"{ODD}{i}", np.full(1000, 1.0), load=ClosedLoop(10 * i, 1), failures={"OVERLOADED": 41_000})
            for i in range(1, 7)
        ),
        comparison=pair("digits", 40_000, 9_000) + pair("sleep", 900, 200) + pair("echo", 1, 1) + pair("x", 1, 1),
    ),
}


def texts_drawn(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> list[Text]:
    """Every text that reaches the paper, in the order of drawing."""
    drawn: list[Text] = []
    draw = Text.draw

    def record(self: Text, *args: object, **kwargs: object) -> None:
        if self.get_visible() and self.get_text().strip():
            drawn.append(self)
        draw(self, *args, **kwargs)

    with monkeypatch.context() as patch, canvas.style():
        patch.setattr(Text, "draw", record)
        figure.canvas.draw()
    return list(dict.fromkeys(drawn))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_no_text_lies_on_another_or_leaves_the_picture(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured on every text that is drawn; warnings of matplotlib are errors here."""
    for name, figure in plots.draw(CASES[case]()).items():
        texts = texts_drawn(figure, monkeypatch)
        boxes = [(text.get_text(), text.get_window_extent()) for text in texts]

        assert len(boxes) >= 3
        for words, box in boxes:
            assert box.x0 >= 0, (name, words)
            assert box.y0 >= 0, (name, words)
            assert box.x1 <= figure.bbox.x1, (name, words)
            assert box.y1 <= figure.bbox.y1, (name, words)
        for (words, box), (others, other) in combinations(boxes, 2):
            overlap = (
                min(box.x1, other.x1) - max(box.x0, other.x0),
                min(box.y1, other.y1) - max(box.y0, other.y0),
            )
            assert min(overlap) <= 1.0, (name, words, others)


@pytest.mark.slow
def test_pictures_are_written_in_their_size(tmp_path: Path) -> None:
    paths = plots.write_pictures(TYPICAL, tmp_path)

    shapes = {path.name: imread(path).shape[:2] for path in paths}
    assert shapes == {
        "latency_distribution.png": (700, 1200),
        "node_distribution.png": (376, 1200),
        "performance_comparison.png": (900, 1200),
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(shapes)


@pytest.mark.slow
def test_user_style_changes_nothing_and_is_left_alone(tmp_path: Path) -> None:
    """A matplotlibrc with TeX and a dark ground would break or spoil the pictures."""
    (plain, *_) = plots.write_pictures(result(PRESETS[0]), tmp_path / "plain")
    with mpl.rc_context({"text.usetex": True, "figure.facecolor": "black", "savefig.dpi": 20}):
        (styled, *_) = plots.write_pictures(result(PRESETS[0]), tmp_path / "styled")

        assert mpl.rcParams["text.usetex"] is True
    assert styled.read_bytes() == plain.read_bytes()


def words_in(figure: Figure) -> str:
    """All texts of a figure that was not drawn yet, without those of ticks."""
    return "\n".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.slow
def test_pictures_say_what_they_must() -> None:
    figures = plots.draw(TYPICAL)
    latency, node, comparison = (words_in(figure) for figure in figures.values())

    for picture in (latency, node, comparison):
        for words in ("digits: ", "2026-01-31 12:00 UTC", "2 cores, A Processor", "3 workers", "zmqinfer 0.1.0"):
            assert words in picture
    for words in ("p50 0.894 ms", "p95 3.44 ms", "p99 3.88 ms", "max 4.00 ms", "latency (ms, logarithmic)"):
        assert words in latency
    assert "p99.9" not in latency, "5,000 samples do not carry it"
    assert "medium, 50 in flight: 5,000 right answers, none failed" in latency
    for words in ("imbalance 10.0 %", "dashed: the mean, 1,000", "worker_3", "1,100\u200237 %"):
        assert words in node
    for words in (
        "light\n20 in flight",
        "57,843",
        "throughput (right answers/s)",
        "batching off\np50 1.34 ms",
    ):
        assert words in comparison
    assert "digits\n2.86 times the throughput with batching" in comparison
    assert "sleep\n8.97 times the throughput with batching" in comparison


@pytest.mark.slow
def test_panels_of_several_models_say_which() -> None:
    """As of a scenario, which has one name; and of a simulation the machine is not named."""
    both = [scenario("two of each", model=model) for model in ("one", "other")]
    simulated = dataclasses.replace(result(*both), configuration=Configuration(3, (), {"time": "virtual"}))

    latency, node, comparison = (words_in(figure) for figure in plots.draw(simulated).values())

    for picture in (latency, node):
        assert "one, other: " in picture
        assert "one, two of each, 50 in flight" in picture
        assert "other, two of each, 50 in flight" in picture
    assert "other\ntwo of each\n50 in flight" in comparison
    assert "virtual time" in latency
    assert "A Processor" not in latency


@pytest.mark.slow
def test_lines_of_percentiles_are_of_one_height() -> None:
    """Whatever the height of their labels, for it says nothing."""
    (axes,) = plots.draw(result(scenario("one")))[plots.LATENCY_FILE].axes

    lines = [line for line in axes.lines if line.get_linewidth() > 1]

    assert len(lines) == 4
    assert len({tuple(line.get_ydata()) for line in lines}) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("counts", "colours"), [((900, 1_100), {"white"}), ((900, 10), {"white", "black"})])
def test_a_count_stands_in_its_bar_or_right_behind_it(counts: tuple[int, ...], colours: set[str]) -> None:
    """Where it cannot be read as the next panel's axis."""
    workers = {f"worker_{n}": count for n, count in enumerate(counts)}
    (axes,) = plots.draw(result(scenario("one", workers=workers)))[plots.NODE_FILE].axes

    labels = [one for one in axes.texts if "%" in one.get_text()]

    assert {one.get_color() for one in labels} == colours
    assert [one.xy[0] for one in labels] == [count if count < 100 else 0 for count in counts]  # type: ignore[attr-defined]


@pytest.mark.slow
def test_side_without_batching_is_hatched_too() -> None:
    """Nothing is said by colour alone."""
    figure = plots.draw(TYPICAL)[plots.COMPARISON_FILE]

    hatches = [bar.get_hatch() for axes in figure.findobj(Axes) for bar in axes.patches]

    assert hatches == [None, None, None, None, "//", None, "//"]


@given(
    places=st.lists(st.floats(0, 1), max_size=6).map(sorted),
    widths=st.lists(st.floats(0.01, 0.4), min_size=6, max_size=6),
)
def test_staircase_keeps_labels_off_each_other(places: list[float], widths: list[float]) -> None:
    """Two labels on one step never meet, and no label is crossed by the line of a higher one."""
    levels = latency_picture._staircase(places, widths)

    for (i, left), (j, right) in combinations(enumerate(places), 2):
        if right < left + widths[i]:
            assert levels[i] > levels[j]
