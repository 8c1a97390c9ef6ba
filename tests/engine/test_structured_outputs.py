"""Answers that are held to a form keep it, whatever shares the batch; a bad form fails its own request alone."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.config import EngineConfig
from ramify.engine.core import EngineCore
from ramify.engine.loading import load_engine
from ramify.engine.request import EngineRequest
from ramify.errors import ConfigError, RequestError, SamplingParamsError
from ramify.llm import LLM
from ramify.models.hub import resolve_model
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams, StructuredOutputsParams, ThinkingMarks
from ramify.text.tokenizer import Tokenizer, load_tokenizer
from tests.engine.harness import Finished, assert_whole, checkpoint, collect, finish, prompt, run

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORMS = {
    "json": {"json": SCHEMA},
    "regex": {"regex": "[0-9]{3}-[a-f]{2,5}"},
    "choice": {"choice": ["yes", "no, never", "maybe é", "a/b|c\n"]},
    "lark": {"grammar": 'start: "x" num\nnum: /[0-9]{1,9}/ "!"'},
    "ebnf": {"grammar": 'root ::= "<" word ">"\nword ::= "ab" | "ba" word'},
}


def kept(name: str, text: str) -> bool:
    if name == "json":
        value = json.loads(text)
        return set(value) == {"name", "age"} and len(value["name"]) <= 6 and 0 <= value["age"] <= 99
    if name == "choice":
        return text in FORMS["choice"]["choice"]
    patterns = {"regex": "[0-9]{3}-[a-f]{2,5}", "lark": "x[0-9]{1,9}!", "ebnf": "<(ba)*ab>"}
    return re.fullmatch(patterns[name], text) is not None


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(checkpoint("llama2"))


def engine(**options: object) -> EngineCore:
    chosen = {"num_kv_blocks": 64, "max_num_seqs": 16, "max_num_batched_tokens": 64, **options}
    return load_engine(checkpoint("llama2"), EngineConfig(**chosen))[0]  # type: ignore[arg-type]


def request(form: dict[str, object] | None, seed: int = 0, length: int = 20, keep: bool = False, **params: object):
    """A request of a random model, which left to itself writes nonsense."""
    outputs = None if form is None else StructuredOutputsParams(**form)  # type: ignore[arg-type]
    chosen = {"max_tokens": 150, "logprobs": 0, "temperature": 1.0, "structured_outputs": outputs, **params}
    return EngineRequest(prompt(length, seed), SamplingParams(**chosen), BranchKey.root(seed), keep=keep)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_every_answer_keeps_its_form(name: str, temperature: float, tokenizer: Tokenizer) -> None:
    for result in run(engine(), *(request(FORMS[name], seed, n=2, temperature=temperature) for seed in range(2))):
        text = tokenizer.decode(result.tokens)
        if name != "ebnf" or result.reason == "stop":  # greedily, its recursion need not end
            assert result.reason == "stop", text
            assert kept(name, text), text


def test_whatever_shares_the_batch_an_answer_is_the_same() -> None:
    forms = [*FORMS.values(), None]
    requests = [request(form, seed, 33, max_tokens=60) for seed, form in enumerate(forms)]
    alone = [run(engine(max_num_batched_tokens=512), each)[0].trace() for each in requests]
    core = engine(num_kv_blocks=9, max_num_batched_tokens=16)
    together = run(core, *requests)
    assert core.counters.preemptions > 0
    assert [result.trace() for result in together] == alone
    assert_whole(core)


def test_n_answers_are_the_branches_one_by_one() -> None:
    forked = run(engine(), request(FORMS["json"], 7, n=4))
    for child, result in enumerate(forked):
        single = request(FORMS["json"], 7)
        (expected,) = run(engine(), EngineRequest(single.prompt_ids, single.params, single.key, first_child=child))
        assert result.trace() == expected.trace()
    assert len({tuple(result.tokens) for result in forked}) == 4


@settings(max_examples=5, deadline=None)
@given(cuts=st.lists(st.integers(1, 9), min_size=1, max_size=6), seed=st.integers(0, 3))
def test_an_answer_that_is_parked_and_forked_on_the_way_is_still_one_answer(cuts: list[int], seed: int) -> None:
    tokenizer = load_tokenizer(checkpoint("llama2"))
    core, results = engine(), {}
    whole = request(FORMS["json"], seed, keep=True)
    (sequence,) = core.add(EngineRequest(whole.prompt_ids, whole.params.with_(max_tokens=1), whole.key, keep=True))
    finish(core, results)
    text = list(results[sequence].tokens)
    for depth, cut in enumerate([*cuts, 150]):
        if results[sequence].reason == "stop":
            break
        (child,) = core.fork(sequence, BranchKey.root(seed, str(depth)), 1)
        core.drop([sequence])
        core.extend(child, whole.params.with_(max_tokens=cut))
        finish(core, results)
        sequence = child
        text += results[child].tokens
    assert kept("json", tokenizer.decode(text))


def test_tokens_that_were_taken_back_are_forgotten(tokenizer: Tokenizer) -> None:
    core, results = engine(), {}
    wanted = request(FORMS["json"], 3, keep=True, max_tokens=25)
    (sequence,) = core.add(wanted)
    finish(core, results)
    core.finish(sequence, num_tokens=len(wanted.prompt_ids) + 4)
    core.extend(sequence, wanted.params.with_(max_tokens=150))
    before = len(results[sequence].tokens)
    finish(core, results)
    assert kept("json", tokenizer.decode(results[sequence].tokens[:4] + results[sequence].tokens[before:]))


def test_tokens_from_outside_are_a_part_of_the_answer(tokenizer: Tokenizer) -> None:
    core, results = engine(), {}
    wanted = request(FORMS["regex"], 3, keep=True)
    (sequence,) = core.add(EngineRequest(wanted.prompt_ids, wanted.params.with_(max_tokens=1), wanted.key, keep=True))
    finish(core, results)
    core.finish(sequence, num_tokens=len(wanted.prompt_ids))
    given = tokenizer.encode("12", add_special_tokens=False)
    good, bad = core.fork(sequence, BranchKey.root(1), 2)
    core.extend(good, wanted.params, append=given)
    core.extend(bad, wanted.params, append=tokenizer.encode("no", add_special_tokens=False))
    finish(core, results)
    assert kept("regex", tokenizer.decode([*given, *results[good].tokens]))
    assert results[bad].reason == "error"
    assert "do not keep the form" in str(results[bad].error)


def test_a_prompt_may_hold_the_answers_beginning(tokenizer: Tokenizer) -> None:
    begun = tokenizer.encode("471-", add_special_tokens=False)
    plain = request(FORMS["regex"], 2)
    ids = (*plain.prompt_ids, *begun)
    (result,) = run(engine(), EngineRequest(ids, plain.params, plain.key, answer_start=len(plain.prompt_ids)))
    assert kept("regex", "471-" + tokenizer.decode(result.tokens))


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"regex": "[a"}, "unclosed character class"),
        ({"regex": "(?=a)b"}, "look-around"),
        ({"grammar": "start: nothing"}, 'line 1: unknown name: "nothing"'),
        ({"grammar": 'root ::= ("a"'}, "grammar cannot be used"),
        ({"json": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"json": {"not": {"type": "string"}}}, '"not"'),
        ({"json": {"$ref": "#"}}, "no text is derived"),
        ({"json": {"$ref": "http://127.0.0.1:1/x"}}, "127.0.0.1"),
        (
            {"structural_tag": {"triggers": ["<f>"], "structures": [{"begin": "<g>", "schema": {}}]}},
            "no trigger begins",
        ),
        ({"structural_tag": {"triggers": ["<f>"], "structures": [], "stop": 1}}, "unknown field 'stop'"),
        ({"regex": "a" * 300_000}, "300,009 bytes"),
    ],
)
def test_a_form_that_cannot_be_used_fails_its_own_request_by_name(form: dict[str, object], words: str) -> None:
    core = engine()
    results = run(core, request(form, n=3), request(None, 1, max_tokens=5), request(FORMS["regex"], 2))
    assert [result.reason for result in results[:3]] == ["error"] * 3
    assert isinstance(results[0].error, ConfigError)
    assert words in str(results[0].error)
    assert [result.reason for result in results[3:]] == ["length", "stop"]
    assert_whole(core)


def test_a_form_that_becomes_too_much_on_the_way_fails_its_own_request() -> None:
    core = engine()
    names = [f"r{number}" for number in range(60)]  # all of them derive the same texts, in many ways each
    ambiguous = "\n".join([f"start: {' | '.join(names)}", *(f'{name}: {name} {name} | "x"' for name in names)])
    bad, good = run(core, request({"grammar": ambiguous}, min_tokens=99), request(FORMS["regex"], 2))
    assert bad.reason == "error"
    assert isinstance(bad.error, RequestError)
    assert "too much work" in str(bad.error)
    assert good.reason == "stop"
    assert_whole(core)


def test_requests_run_while_a_grammar_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from ramify.engine import grammars

    reading, compile_form = threading.Event(), grammars.compile_form
    monkeypatch.setattr(grammars, "compile_form", lambda *given: (reading.wait(20), compile_form(*given))[1])
    core, results = engine(), {}
    slow = core.add(request(FORMS["regex"], n=2))
    (quick,) = core.add(request(None, 1, max_tokens=5))
    while results.get(quick, Finished()).reason is None:
        collect(results, core.step())
    assert not results.keys() & set(slow)
    core.drop(slow[:1])  # its sibling takes its place
    reading.set()
    finish(core, results)
    assert results[slow[1]].reason == "stop"
    assert_whole(core)


def test_more_forms_than_are_kept_are_all_followed(tokenizer: Tokenizer) -> None:
    forms = [{"regex": f"{number:03}[ab]"} for number in range(80)]
    core = engine(max_num_seqs=64)
    for number, result in enumerate(run(core, *(request(form, length=5) for form in forms))):
        assert re.fullmatch(f"{number:03}[ab]", tokenizer.decode(result.tokens))
    assert_whole(core)


def test_other_parameters_yield_to_a_complete_answer(tokenizer: Tokenizer) -> None:
    core = engine()
    (long,) = run(core, request({"choice": ["ab"]}, min_tokens=20))
    assert tokenizer.decode(long.tokens) == "ab"
    letters = tokenizer.encode("ab", add_special_tokens=False)
    (only,) = run(core, request({"choice": ["ab"]}, allowed_token_ids=letters))
    assert tokenizer.decode(only.tokens) == "ab"
    biased = request({"regex": "[ab]{8}"}, logit_bias={tokenizer.token_id("b"): 100.0}, temperature=0.0)
    assert tokenizer.decode(run(core, biased)[0].tokens) == "b" * 8
    (none,) = run(core, request({"choice": ["cd"]}, allowed_token_ids=letters))
    assert isinstance(none.error, RequestError)


def test_a_model_without_an_end_ends_where_nothing_can_follow(tokenizer: Tokenizer) -> None:
    folder = checkpoint("qwen3", eos_token_id=None)
    core, _ = load_engine(folder, EngineConfig(num_kv_blocks=64))
    assert core.model_config.eos_token_ids == ()
    (result,) = run(core, request({"regex": "[0-9]{3}"}))
    assert re.fullmatch("[0-9]{3}", tokenizer.decode(result.tokens))
    assert result.reason == "stop"


def test_the_mass_that_a_form_leaves_is_known() -> None:
    (result,) = run(engine(), request({"choice": ["yes"]}))
    assert all(entry.log_mass < -0.01 for entry in result.logprobs)
    assert all(abs(entry.log_mass - entry.logprob) < 1e-3 for entry in result.logprobs[-1:])  # only the end was left


def test_a_grammar_cannot_force_one_tokenisation(tokenizer: Tokenizer) -> None:
    forced = '%llguidance {"no_forcing": false}\nstart: "The apples"'
    results = run(engine(), *(request({"grammar": forced}, seed) for seed in range(5)))
    assert {tokenizer.decode(result.tokens) for result in results} == {"The apples"}
    assert len({tuple(result.tokens) for result in results}) > 1


def test_free_text_opens_parts_with_forms(tokenizer: Tokenizer) -> None:
    tag = {
        "triggers": ["<"],
        "structures": [
            {"begin": "<one>", "schema": {"type": "integer", "minimum": 10, "maximum": 99}, "end": "</>"},
            {"begin": "<two>", "schema": {"enum": ["a", "b"]}, "end": "</>"},
        ],
    }
    single = {**tag, "at_least_one": True, "stop_after_first": True}
    bias = {tokenizer.token_id("<"): 5.0}  # or it would hardly ever begin
    part = r"<one>\d\d</>|<two>\"[ab]\"</>"
    core = engine()
    requests = [request({"structural_tag": form}, seed, logit_bias=bias) for form in (tag, single) for seed in range(3)]
    texts = [(tokenizer.decode(result.tokens), result.reason) for result in run(core, *requests)]
    for text, reason in texts[:3]:
        free = re.split(part, text)
        assert len(free) > 1
        assert "<" not in "".join(free[:-1])
        assert reason == "length" or "<" not in free[-1]
    for text, reason in texts[3:]:
        assert reason == "stop"
        assert re.fullmatch(rf"[^<]*({part})", text)


# Thinking


def marks(tokenizer: Tokenizer, inside: bool) -> ThinkingMarks:
    start, end = (tokenizer.encode(text, add_special_tokens=False) for text in ("<think>", "</think>\n"))
    return ThinkingMarks((start,), (end,), inside)


@pytest.mark.parametrize("budget", [0, 1, 7])
def test_thinking_ends_at_its_budget(budget: int, tokenizer: Tokenizer) -> None:
    known = marks(tokenizer, inside=True)
    given = {"thinking_token_budget": budget, "thinking_marks": known}
    results = run(engine(), *(request(None, seed, ignore_eos=True, max_tokens=40, **given) for seed in range(3)))
    for result in results:
        assert tuple(result.tokens[budget : budget + len(known.ends[0])]) == known.ends[0]
        assert len(result.tokens) == 40
    (formed,) = run(engine(), request(FORMS["json"], **given))
    assert kept("json", tokenizer.decode(formed.tokens[budget + len(known.ends[0]) :]))


def test_an_answer_may_start_with_a_thought_or_without(tokenizer: Tokenizer) -> None:
    known = marks(tokenizer, inside=False)
    given = {"thinking_token_budget": 5, "thinking_marks": known}
    (plain,) = run(engine(), request(FORMS["choice"], logit_bias={known.starts[0][0]: -100.0}, **given))
    assert kept("choice", tokenizer.decode(plain.tokens))
    opened = request(FORMS["choice"], logit_bias=dict.fromkeys(known.starts[0], 60.0), **given)
    (thought,) = run(engine(), opened)
    text = tokenizer.decode(thought.tokens)
    assert text.startswith("<think>")
    assert kept("choice", text.split("</think>\n", 1)[1])


def test_a_thought_without_a_budget_is_free_and_its_end_begins_the_form(tokenizer: Tokenizer) -> None:
    known = marks(tokenizer, inside=True)
    free = request(None, 4, ignore_eos=True, max_tokens=30, temperature=0.0)
    held = request(FORMS["regex"], 4, max_tokens=30, temperature=0.0, thinking_marks=known)
    (expected,), (result,) = run(engine(), free), run(engine(), held)
    assert 0 not in expected.tokens
    assert result.tokens == expected.tokens


def test_thinking_goes_on_counting_where_a_sequence_is_extended(tokenizer: Tokenizer) -> None:
    known = marks(tokenizer, inside=True)
    wanted = request(None, 1, keep=True, ignore_eos=True, max_tokens=4, thinking_token_budget=6, thinking_marks=known)
    core, results = engine(), {}
    (sequence,) = core.add(wanted)
    finish(core, results)
    core.extend(sequence, wanted.params.with_(max_tokens=10))
    finish(core, results)
    assert tuple(results[sequence].tokens[6 : 6 + len(known.ends[0])]) == known.ends[0]


# Parameters


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "exactly one"),
        ({"regex": "a", "choice": ["a"]}, "regex and choice"),
        ({"json": "{"}, "no JSON"),
        ({"json": "[1]"}, "no JSON object"),
        ({"json": 3}, "int"),
        ({"json": "[" * 100_000}, "nested too deeply"),
        ({"choice": []}, "one or more"),
        ({"choice": "yes"}, "list"),
        ({"regex": 3}, "text"),
    ],
)
def test_a_form_is_checked_when_it_is_made(given: dict[str, object], words: str) -> None:
    with pytest.raises(SamplingParamsError, match=words):
        StructuredOutputsParams(**given)  # type: ignore[arg-type]


def test_a_schema_nested_as_deep_as_python_can_make_it_is_an_error() -> None:
    schema: dict[str, object] = {}
    for _ in range(50_000):
        schema = {"items": schema}
    with pytest.raises(SamplingParamsError, match="nested too deeply"):
        StructuredOutputsParams(json=schema)


def test_parameters_that_contradict_a_form_are_refused() -> None:
    with pytest.raises(SamplingParamsError, match="ignore_eos"):
        SamplingParams(structured_outputs=StructuredOutputsParams(regex="a"), ignore_eos=True)
    with pytest.raises(SamplingParamsError, match="thinking_marks"):
        SamplingParams(thinking_token_budget=3)


def test_llm_generates_to_a_form_and_refuses_a_bad_one_before_anything_runs() -> None:
    with LLM(resolve_model("nano"), num_kv_blocks=64) as llm:
        params = SamplingParams(structured_outputs=StructuredOutputsParams(json=SCHEMA), max_tokens=200, n=2, seed=1)
        (output,) = llm.generate("A person:", params, use_tqdm=False)
        assert all(kept("json", completion.text) for completion in output.outputs)
        bad = SamplingParams(structured_outputs=StructuredOutputsParams(regex="["))
        with pytest.raises(ConfigError, match="the regex cannot be used"):
            llm.generate(["a", "b"], [SamplingParams(), bad], use_tqdm=False)
        assert llm.core.counters.prompt == 2 * len(output.prompt_token_ids)
