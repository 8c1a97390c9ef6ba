"""Numbers of a run by hand: percentiles, goodput, pictures."""

from pathlib import Path

import pytest

from ramify.errors import ConfigError
from ramify.serving.bench.client import Measured
from ramify.serving.bench.drive import Load
from ramify.serving.bench.figures import draw_load
from ramify.serving.bench.summary import parse_goodput, summarise, within
from ramify.serving.bench.watch import Moment


def request(intended_s: float, first_s: float, gap_s: float = 0.1, tokens: int = 5) -> Measured:
    times = [intended_s + first_s + i * gap_s for i in range(tokens)]
    return Measured(
        intended_s, sent_s=intended_s + 0.001, token_times_s=times, ended_s=times[-1], output_tokens=tokens,
        prompt_tokens=10, cached_tokens=4, status=200,
    )  # fmt: skip


LOAD = Load(
    [request(i, 0.1 * (i + 1)) for i in range(10)], 0.0, 12.0, [Moment(0.5 * i, 0.1 * i, i, 0) for i in range(9)]
)


def test_percentiles_and_rates_are_those_of_the_requests() -> None:
    summary = summarise(LOAD)
    assert summary.ttft.percentiles[50.0] == pytest.approx(550)
    assert summary.ttft.percentiles[99.0] == pytest.approx(991)
    assert summary.tpot.mean == pytest.approx(100)
    assert summary.e2el.percentiles[50.0] == pytest.approx(950)
    assert (summary.total_input_tokens, summary.total_cached_tokens, summary.total_output_tokens) == (100, 40, 50)
    assert summary.output_throughput == pytest.approx(50 / 12)
    assert summary.send_lag.mean == pytest.approx(1.0)
    assert summary.request_goodput is None


def test_several_tokens_in_one_piece_count_by_the_servers_number() -> None:
    coarse = request(0.0, 0.1, gap_s=0.4, tokens=2)
    coarse.output_tokens = 9
    assert summarise(Load([coarse], 0.0, 1.0)).tpot.mean == pytest.approx(50)
    at_once, alone = request(0.0, 0.1, tokens=1), request(0.0, 0.1, tokens=1)
    at_once.output_tokens = 9
    tpot = summarise(Load([at_once, alone], 0.0, 1.0)).tpot
    assert (tpot.count, tpot.mean) == (1, 0.0)


def test_goodput_counts_those_within_every_objective() -> None:
    objectives = parse_goodput(["ttft:450", "tpot:120"])
    assert summarise(LOAD, objectives).goodput_share == pytest.approx(0.4)
    assert summarise(LOAD, objectives).request_goodput == pytest.approx(4 / 12)
    assert not within(request(0, 0.1), {"tpot": 90})


@pytest.mark.parametrize("text", ["ttft", "ttft:fast", "speed:5", "ttft:-1"])
def test_an_objective_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write ttft:500"):
        parse_goodput([text])


def test_nothing_that_went_well_gives_no_numbers_rather_than_zeros() -> None:
    failed = Measured(0.0, error="HTTP 500")
    summary = summarise(Load([failed], 0.0, 1.0), {"ttft": 1.0})
    assert summary.ttft.mean != summary.ttft.mean
    assert summary.goodput_share == 0


def test_every_picture_is_drawn_as_svg_and_png(tmp_path: Path) -> None:
    paths = draw_load(LOAD, tmp_path)
    assert sorted(path.name for path in paths) == [
        "latency.png", "latency.svg", "over-time.png", "over-time.svg", "server.png", "server.svg",
    ]  # fmt: skip
    assert all(path.stat().st_size > 1000 for path in paths)
    assert "KV memory in use" in (tmp_path / "server.svg").read_text()
