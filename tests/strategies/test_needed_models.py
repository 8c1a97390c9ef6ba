"""Which models are loaded beside the main one: those that a strategy's configuration names, wherever it does."""

from dataclasses import dataclass, field

from ramify.scoring.calibration import CalibratedScorer
from ramify.scoring.prm import ProcessReward
from ramify.strategies import BestOfN, Sample, parse_strategy
from ramify.strategies.needed_models import other_models, reward_models


def test_reward_models_are_those_of_the_scorers_that_are_used():
    assert reward_models(Sample()) == ()
    assert reward_models(BestOfN(scorer=ProcessReward("one")), BestOfN(scorer=ProcessReward("two"))) == ("one", "two")
    assert reward_models(BestOfN(scorer=ProcessReward("one")), BestOfN(scorer=ProcessReward("one"), n=2)) == ("one",)
    assert reward_models(parse_strategy("best-of-n:scorer=rule")) == ()


def test_a_reward_model_inside_another_scorer_is_found():
    assert reward_models(BestOfN(scorer=CalibratedScorer(ProcessReward("inner")))) == ("inner",)


def test_a_scorer_that_a_strategy_leaves_unused_needs_no_model():
    assert reward_models(parse_strategy("tournament:judge=letters")) == ()
    assert reward_models(parse_strategy("tournament")) == ("nano-prm",)
    assert reward_models(parse_strategy("spec-reason:judge=grade")) == ()
    assert reward_models(parse_strategy("cascade:confidence=scores,model=other-prm")) == ("other-prm",)


def test_other_models_are_those_that_a_strategy_calls_by_name():
    assert other_models(Sample(), BestOfN()) == ()
    methods = [parse_strategy(spec) for spec in ("spec-reason:small=a", "nudging:small=a", "cascade:cheaper=b+a")]
    assert other_models(*methods) == ("a", "b")
    programs = {
        "self-refine:critic=a,editor=b": ("a", "b"),
        "annealing:editor=b": ("b",),
        "feedback-edit:critic=a": ("a",),
        "iad:editor=b": ("b",),
        "mind-evolution:critic=a,author=b": ("a", "b"),
        "moa:models=main+a,aggregator=b": ("a", "b"),
        "archon:layers=generator:2@a/fuser@b": ("a", "b"),
        "best-of-n:scorer=generative-verifier,model=judge": ("judge",),
    }
    assert {spec: other_models(parse_strategy(spec)) for spec in programs} == programs


def test_a_method_of_ones_own_is_asked_too():
    @dataclass(frozen=True)
    class Asker(BestOfN):
        scorer: ProcessReward = field(default_factory=lambda: ProcessReward("mine"))
        other_models: tuple[str, ...] = ("helper",)

    assert reward_models(Asker()) == ("mine",)
    assert other_models(Asker()) == ("helper",)
