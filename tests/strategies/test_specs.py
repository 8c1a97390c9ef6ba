"""Specs: text to strategies and back."""

from pathlib import Path

import pytest

from ramify import registry
from ramify.errors import ConfigError, SamplingParamsError
from ramify.sampling import SamplingParams
from ramify.scoring import MeanLogprob, ProcessReward
from ramify.strategies import Beam, BestOfN, ParticleFilter, Sample, StepSplitter, describe, parse_strategy
from ramify.strategies.registry import build_strategy

DOCS = Path(__file__).parents[2] / "docs"


def test_a_name_alone_gives_the_defaults():
    assert parse_strategy("best-of-n") == BestOfN()
    assert parse_strategy("sample").sampling.temperature == 0.8
    assert parse_strategy("sample").sampling.max_tokens is None


def test_options_reach_the_strategy_its_scorer_and_its_sampling():
    made = parse_strategy("best-of-n:n=4,agg=min,model=big,temperature=0.5,max-tokens=64,top_p=0.9")
    assert made == BestOfN(
        n=4,
        scorer=ProcessReward(model="big", agg="min"),
        sampling=SamplingParams(temperature=0.5, max_tokens=64, top_p=0.9),
    )


def test_the_callers_sampling_holds_for_what_the_spec_leaves_open():
    base = SamplingParams(temperature=0.3, max_tokens=99)
    assert parse_strategy("sample:temperature=0", base) == Sample(sampling=base.with_(temperature=0))


def test_scorers_and_splitters_are_chosen_by_name():
    assert parse_strategy("best-of-n:scorer=logprob").scorer == MeanLogprob()
    assert parse_strategy("beam:until=paragraph") == Beam(until=StepSplitter(stop=("\n\n",)))
    assert parse_strategy("particle-filter:until=16") == ParticleFilter(until=StepSplitter(max_tokens=16))


@pytest.mark.parametrize(
    "spec",
    [
        "sample",
        "sample:temperature=0.0",
        "best-of-n:n=4,agg=min",
        "best-of-n:scorer=logprob,select=soft",
        "beam:n=8,m=2,until=32",
        "particle-filter:n=4,until=paragraph,potential=incremental",
    ],
)
def test_describing_a_strategy_gives_a_spec_that_makes_it_again(spec):
    made = parse_strategy(spec)
    assert parse_strategy(describe(made)) == made


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("best-of-m", "did you mean 'best-of-n'"),
        ("best-of-n:k=3", "unknown option of best-of-n 'k'"),
        ("best-of-n:n=many", "must be a whole number"),
        ("best-of-n:agg=median", "choose from last, min, prod, mean"),
        ("best-of-n:n", "write name:key=value"),
        ("best-of-n:n=1,n=2", "given twice"),
        ("best-of-n:scorer=prn", "did you mean 'prm'"),
        ("beam:until=word", "unknown splitter"),
        ("sample:logit_bias=1", "pass it from Python"),
        ("", "unknown strategy"),
    ],
)
def test_a_wrong_spec_is_refused_with_the_remedy(spec, words):
    with pytest.raises(ConfigError, match=words):
        parse_strategy(spec)


def test_a_sampling_option_out_of_range_is_refused():
    with pytest.raises(SamplingParamsError, match="temperature=-1"):
        parse_strategy("sample:temperature=-1")


def test_every_technique_states_what_it_trades_and_where_its_page_is():
    entries = registry.techniques()
    assert {entry.kind for entry in entries} >= {"strategy", "scorer", "splitter", "equivalence"}
    for entry in entries:
        assert entry.trade in ("lossless", "distribution", "approximate")
        assert (DOCS / entry.page).is_file(), entry
        assert entry.summary.endswith((".", ":")), entry.summary


def test_a_name_cannot_be_taken_twice():
    with pytest.raises(ConfigError, match="exists already"):

        @registry.register("sample", kind="strategy", trade="lossless")
        class Other:
            """Another."""


@pytest.mark.parametrize("option", ["n", "seed", "prompt_logprobs", "detokenize"])
def test_what_a_run_sets_itself_is_no_option_for_it_would_change_nothing(option):
    with pytest.raises(ConfigError, match=f"unknown option of sample {option!r}"):
        parse_strategy(f"sample:{option}=1")


def test_a_close_name_is_suggested():
    with pytest.raises(ConfigError, match="did you mean 'select'"):
        parse_strategy("best-of-n:selekt=max")


def test_no_number_is_not_a_number():
    with pytest.raises(ConfigError, match="tau='nan' does not work: it must be a number"):
        parse_strategy("best-of-n:tau=nan")


def test_a_strategy_is_built_from_options_with_commas_and_a_scorer_of_its_own():
    made = build_strategy("synthesis", {"item": "a, {answer}", "n": "3"}, scorer=MeanLogprob())
    assert (made.item, made.n, made.scorer) == ("a, {answer}", 3, MeanLogprob())
    with pytest.raises(ConfigError, match="takes no scorer"):
        build_strategy("self-consistency", {}, scorer=MeanLogprob())


def test_options_that_name_files_are_known():
    found = {entry.name: set(registry.file_options(entry.factory)) for entry in registry.techniques("strategy")}
    assert {name: options for name, options in found.items() if options} == {
        "calibrated-prm": {"calibration"},
        "self-calibration": {"calibration"},
        "smc-steering": {"regex", "grammar", "json_schema"},
    }
