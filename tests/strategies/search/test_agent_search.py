"""Best-first search in an environment that can only be started over, and the environments that come with it."""

import asyncio
from fractions import Fraction

import numpy as np
import pytest

from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import ConfigError, RequestError
from ramify.scoring import Problem
from ramify.strategies import Budget, parse_strategy, solve
from ramify.strategies.kernel.trace import Forced, Grown
from ramify.strategies.search.agent_search import AgentSearch
from ramify.strategies.search.environment import AnswerWorld, CountdownWorld, Environment, evaluate, make_environment
from ramify.strategies.steps import StepSplitter
from ramify.strategies.testing import BY_TEXT, check_strategy, rising_reward

EVEN = ToyModel.random(0, depth=7)
EVEN = ToyModel(EVEN.texts, {p: np.array([0.01, 0.33, 0.33, 0.33]) if len(p) < 6 else np.eye(4)[0] for p in EVEN.table})
ONE = StepSplitter(max_tokens=1)


class Lock:
    """A lock of four letters: each right letter in turn opens it a little, a wrong one jams it.

    Every instance writes down what was done to it.
    """

    code = "abca"

    def __init__(self, problem):
        self.log = []
        self.start()
        problem.metadata.get("made", []).append(self)

    def start(self):
        self.place, self.done = 0, False

    @property
    def score(self):
        return self.place / len(self.code)

    def reset(self):
        self.log.append("reset")
        self.start()
        return ""

    def act(self, action):
        assert not self.done, "an action after the end"
        self.log.append(action)
        if action == self.code[self.place]:
            self.place += 1
            self.done = self.place == len(self.code)
            return ""
        self.done = True
        return ""


class Echo(Lock):
    """Says "a" after each right letter."""

    code = "bcb"

    def act(self, action):
        super().act(action)
        return "" if self.done else "a"


def run(strategy, made=None, seed=0, **options):
    backend = ToyBackend(EVEN, {"nano-prm": rising_reward}, max_model_len=24)
    strategy = parse_strategy(strategy) if isinstance(strategy, str) else strategy
    problem = Problem("p", "xy", metadata={"made": made if made is not None else []})
    return asyncio.run(solve(strategy, problem, backend, equivalence=BY_TEXT, seed=seed, **options))


def agent(**options):
    options = {"environment": Lock, "value": "environment", "until": ONE, "width": 16, "expansions": 12, **options}
    return AgentSearch(**options)


def test_it_opens_the_lock_and_says_that_it_is_certain():
    for seed in range(5):
        result = run(agent(), seed=seed)
        assert result.text.split() == ["ab", "c", "a"]
        assert (result.stop_reason, result.best.finish_reason) == ("certain", "stop")
        assert result.ledger.verifier == 0


def test_the_environment_is_reset_and_its_actions_repeated_before_each_new_one():
    made = []
    run(agent(), made)
    (lock,) = made
    episodes = "/".join(lock.log).split("reset")[2:]  # the first reset looks at the start
    assert all(episode.strip("/") for episode in episodes)
    done = [tuple(episode.strip("/").split("/")) for episode in episodes]
    for actions in done:
        assert actions[:-1] == tuple(Lock.code[: len(actions) - 1])  # only what worked is gone on from
    assert len(done) == len(set(done))
    assert ("a", "b", "c", "a") in done


def test_the_search_notes_what_the_environment_was_put_through():
    made = []
    result = run(agent(), made)
    resets, acts = made[0].log.count("reset") - 1, len([entry for entry in made[0].log if entry != "reset"])
    assert result.notes == (f"the environment was reset {resets} times and took {acts} actions",)


def test_the_state_of_the_highest_value_is_expanded_first():
    result = run(agent(width=4, expansions=20), seed=2)
    tree = result.trace.tree()
    expanded = list(dict.fromkeys(event.parent for event in result.trace.events if isinstance(event, Grown)))
    depth = {0: 0}
    for node in tree[1:]:
        depth[node.id] = depth[node.parent] + 1
    assert [depth[number] for number in expanded] == sorted(depth[number] for number in expanded)


def test_what_is_observed_stands_in_the_transcript_and_the_model_goes_on_from_it():
    result = run(agent(environment=Echo, observation="{observation}"), seed=1)
    assert any(isinstance(event, Forced) and event.text == "a" for event in result.trace.events)
    assert result.text == "b\nac\nab\n"
    assert result.stop_reason == "certain"


def test_an_environment_that_does_not_repeat_itself_is_an_error():
    class Moody(Lock):
        moods = 0

        def act(self, action):
            self.moods += 1
            super().act(action)
            return f"a{'a' * (self.moods % 3)}" if not self.done else ""

    with pytest.raises(RequestError, match="did not repeat itself"):
        run(agent(environment=Moody, observation="{observation}"))


def test_a_score_outside_its_range_is_an_error():
    class Boasting(Lock):
        score = 7.0

    with pytest.raises(RequestError, match="between 0 and 1"):
        run(agent(environment=Boasting))


def test_expansions_and_depth_are_kept():
    for expansions, depth in [(1, 16), (4, 16), (9, 2)]:
        strategy = agent(environment=AnswerWorld, expansions=expansions, depth=depth, value="scorer", width=3)
        events = [event for event in run(strategy).trace.events if isinstance(event, Grown)]
        assert len({event.parent for event in events}) <= expansions
        node_depth = {0: 0}
        for event in events:
            node_depth[event.node] = node_depth[event.parent] + 1
        assert max(node_depth.values()) <= depth


def test_the_problem_names_its_own_environment():
    problem = Problem("p", "xy", metadata={"environment": Lock})
    assert isinstance(make_environment("answer", problem), Lock)
    assert isinstance(make_environment("answer", Problem("p", "xy")), AnswerWorld)
    with pytest.raises(ConfigError, match="choose from answer, countdown"):
        make_environment("web", Problem("p", "xy"))
    with pytest.raises(ConfigError, match="is no environment"):
        make_environment(lambda problem: object(), Problem("p", "xy"))


COUNTDOWN = Problem("c", "xy", metadata={"numbers": (3, 7, 4), "target": 25})


@pytest.mark.parametrize(
    ("actions", "left", "done", "score"),
    [
        ([], [3, 4, 7], False, 0.0),
        (["7 * 3 = 21"], [4, 21], False, 0.0),
        (["7 * 3 = 21", "21 + 4 = 25"], [25], False, 0.0),
        (["7 * 3 = 21", "21 + 4 = 25", "#### 7 * 3 + 4"], [25], True, 1.0),
        (["#### (7*3)+4"], [3, 4, 7], True, 1.0),
        (["#### 25"], [3, 4, 7], True, 0.0),
        (["#### 7 * 3 + 4 + 0"], [3, 4, 7], True, 0.0),
        (["7 * 3 = 22"], [3, 4, 7], True, 0.0),
        (["7 * 7 = 49"], [3, 4, 7], True, 0.0),
        (["3 - 7 = 4"], [3, 4, 7], True, 0.0),
        (["hello"], [3, 4, 7], True, 0.0),
        ([""], [3, 4, 7], True, 0.0),
    ],
)
def test_the_countdown_world_keeps_the_rules(actions, left, done, score):
    world = CountdownWorld(COUNTDOWN)
    assert isinstance(world, Environment)
    for _ in range(2):  # the second time after a reset
        assert world.reset() == ""
        for action in actions:
            assert world.act(action) == ""
        assert (sorted(world.left), world.done, world.score) == (left, done, score)


def test_an_action_after_the_end_and_a_problem_without_numbers_are_errors():
    world = CountdownWorld(COUNTDOWN)
    world.act("nonsense")
    with pytest.raises(RequestError, match="reset"):
        world.act("7 * 3 = 21")
    with pytest.raises(ConfigError, match="numbers and target"):
        CountdownWorld(Problem("p", "xy"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", (Fraction(7), [1, 2, 3])),
        ("(8 / 3) - 1", (Fraction(5, 3), [1, 3, 8])),
        ("1 / 0", None),
        ("2 ** 9", None),
        ("7 // 2", None),
        ("-3", None),
        ("1 2", None),
        ("", None),
        ("(" * 90 + "1" + ")" * 90, None),
        ("1" * 300, None),
        ("__import__('os')", None),
    ],
)
def test_expressions_are_evaluated_exactly_or_not_at_all(text, value):
    found = evaluate(text)
    assert found == value or (value is None and text.startswith("((") and found == (Fraction(1), [1]))


def test_agents_in_countdown_combine_the_models_lines_with_the_worlds_check():
    texts = ("", "7 * 3 = 21\n", "7 * 4 = 28\n", "#### 7 * 4 - 3\n", "#### 7 * 3 + 4\n")
    base = ToyModel.random(0, texts, depth=5)
    backend = ToyBackend(base, {"nano-prm": lambda tokens: 0.5}, max_model_len=24)
    strategy = parse_strategy("agent-search:environment=countdown,width=6,expansions=10")
    result = asyncio.run(solve(strategy, COUNTDOWN, backend))
    assert result.stop_reason == "certain"
    assert result.text.endswith(("#### 7 * 4 - 3\n", "#### 7 * 3 + 4\n"))
    assert result.text.splitlines()[-1] in ("#### 7 * 3 + 4", "#### 7 * 4 - 3")
    world = CountdownWorld(COUNTDOWN)
    for line in result.text.splitlines():
        world.act(line)
    assert world.score == 1.0


def test_a_run_that_is_cut_has_the_best_state_so_far():
    result = run(agent(width=3), budget=Budget(tokens=7))
    assert result.stop_reason == "budget"
    assert result.candidates


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("expansions=0", "at least 1"),
        ("width=0", "at least 1"),
        ("depth=0", "at least 1"),
        ("parallel=0", "at least 1"),
        ("environment=web", "choose from answer, countdown"),
        ("observation=seen", "must name"),
        ("value=hope", "choose from scorer, environment"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        parse_strategy(f"agent-search:{options}")


@pytest.mark.parametrize("spec", ["agent-search:until=1,width=4,parallel=2,expansions=7"])
def test_the_laws_of_every_strategy(spec):
    check_strategy(parse_strategy(spec))


def test_the_laws_of_every_strategy_in_an_environment_with_observations():
    check_strategy(agent(environment=Echo, observation="{observation}", expansions=5, width=4))
