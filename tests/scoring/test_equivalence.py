"""Answer equivalence: what counts as the same answer, for each kind of answer, and the contract of all of them."""

import threading
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify import registry
from ramify.errors import CapabilityError, ConfigError, TaskError
from ramify.scoring import KeyedBy, Problem
from ramify.scoring.equivalence import (
    CodeBehaviour,
    GroupAnswer,
    MarkedAnswer,
    MathAnswer,
    MultipleChoice,
    NumberAnswer,
    TextAnswer,
    symbolic,
)
from ramify.scoring.sandbox import Sandbox
from ramify.scoring.testing import HOSTILE_TEXTS, check_equivalence

PROBLEM = Problem("p", "?")
READERS = [MarkedAnswer(), NumberAnswer(), TextAnswer(), TextAnswer(whole=True), MultipleChoice(), GroupAnswer()]
READERS.append(MathAnswer())

MATHEMATICS = [
    ("#### 1/2", "\\boxed{0.5}", "\\boxed{\\frac12}", "\\boxed{\\dfrac{1}{2}}", "Answer: 50%", "\\boxed{2^{-1}}"),
    ("\\boxed{\\sqrt{8}}", "\\boxed{2\\sqrt{2}}", "#### 2sqrt(2)", "\\boxed{2 \\cdot 2^{1/2}}", "\\boxed{\\sqrt8}"),
    ("\\boxed{(x+1)^2}", "#### x^2+2x+1", "#### x**2 + 2*x + 1", "\\boxed{x^{2}+2\\cdot x+1}", "\\boxed{(1+x)^{2}}"),
    ("\\boxed{\\frac{\\pi}{4}}", "#### pi/4", "\\boxed{0.25\\pi}"),
    ("\\boxed{5\\text{ cm}}", "#### 5", "\\boxed{x=5}", "\\boxed{5 \\mathrm{cm}^2}", "\\boxed{\\sqrt{25}}"),
    ("\\boxed{90^\\circ}", "#### 90", "\\boxed{90^{\\circ}}"),
    ("\\boxed{\\frac{\\sqrt{3}}{3}}", "\\boxed{\\frac{1}{\\sqrt{3}}}"),
    (
        "\\boxed{\\sin^2 x + \\cos^2 x}",
        "#### 1",
        "\\boxed{-e^{i\\pi}}",
        "\\boxed{\\tan 45^\\circ}",
        "\\boxed{2\\sin(30^{\\circ})}",
    ),
    ("\\boxed{3+4i}", "#### 4i+3"),
    ("#### 2x+y=3", "\\boxed{4x+2y-6=0}", "\\boxed{\\frac{y}{2} = \\frac{3}{2} - x}"),
    ("#### y=2x+1", "#### 2x+1"),
    ("\\boxed{\\begin{pmatrix}1\\\\ 2\\end{pmatrix}}", "\\boxed{\\begin{pmatrix}\\frac{2}{2}\\\\ 2\\end{pmatrix}}"),
    ("\\boxed{\\{1, \\sqrt{2}\\}}", "\\boxed{\\sqrt{2}, 1}", "\\boxed{x=1 \\text{ or } x=\\sqrt{2}}"),
    ("\\boxed{\\left(\\frac{1}{2}, 3\\right)}", "#### (0.5, 3)"),
    ("\\boxed{[1, \\infty)}", "\\boxed{x \\in [1,\\infty)}", "#### [1, inf)"),
    ("\\boxed{(-\\infty,2)\\cup(3,\\infty)}", "\\boxed{(3, \\infty) \\cup (-\\infty, 2)}"),
    ("\\boxed{\\text{Evelyn}}", "#### evelyn", "Answer: **Evelyn**"),
    ("#### no",),
    ("#### on",),
    ("#### x^3",),
    ("#### -x^3",),
    ("#### 10^20",),
    ("\\boxed{10^{20}+1}", "#### 100000000000000000001"),
    ("#### x+10^20",),
    ("#### x+10^20+1",),
    ("#### pi",),
    ("#### 3.14159265358979",),
]
GROUPS = [
    ("#### {1, 2}", "\\boxed{\\{2,1\\}}", "#### 2, 1", "#### 1 and 2", "#### {2, 1.0, 1}"),
    ("#### (1, 2)", "\\boxed{\\left(1,\\ 2\\right)}"),
    ("#### (2, 1)",),
    ("#### [1, 2)",),
    ("#### {(1, 2), (3, 4)}", "#### (3,4), (1,2)"),
    ("#### {red, Green}", "#### green, red"),
    ("#### (-\\infty, 2) \\cup (3, oo)", "#### (3, +inf) U (-infinity, 2)"),
    ("#### 12", "#### (12)", "#### ((12))"),
    ("#### 1,234", "#### 1234"),
    ("#### {1,{2,3}}", "#### {{3,2},1}"),
]
CHOICES = [
    ("B", "(B)", "b", "B.", "B)", "#### B", "\\boxed{B}", "\\boxed{\\text{(B)}}", "\\boxed{\\textbf{B}}"),
    ("Answer: C", "The correct answer is C.", "so the answer is (C) 12", "**C**", "C) forty", "Answer: option C"),
    ("First A, but then\nD\n", "I choose D", "Answer: D. the dog", "(A) is wrong, the answer is D"),
]


@pytest.mark.parametrize("equivalence", READERS, ids=lambda made: type(made).__name__)
def test_the_contract_holds_on_hostile_and_on_ordinary_text(equivalence):
    texts = [text for groups in (MATHEMATICS, GROUPS, CHOICES) for group in groups for text in group]
    check_equivalence(equivalence, texts, PROBLEM, hostile=True)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(alphabet="0123456789+-*/^=(){}[],.\\ frac sqrtx#ABC\n%$", max_size=40), max_size=6))
def test_the_contract_holds_on_any_text(texts):
    marked = [f"#### {text}" for text in texts]
    for equivalence in READERS:
        check_equivalence(equivalence, [*texts, *marked])


@settings(max_examples=40, deadline=None)
@given(st.recursive(st.sampled_from(["x", "y", "2", "3", "1/2"]), lambda inner: st.tuples(inner, inner), max_leaves=6))
def test_a_sum_written_backwards_is_the_same_expression(tree):
    def written(part, swap):
        if isinstance(part, str):
            return part
        left, right = (written(one, swap) for one in part)
        return f"({right} + {left})" if swap else f"({left} + {right})"

    keys = {MathAnswer().key(f"#### {written(tree, swap)}", PROBLEM) for swap in (False, True)}
    assert len(keys) == 1


def test_mathematics_is_compared_by_its_meaning():
    check_equivalence(MathAnswer(), [], same=MATHEMATICS)


def test_groups_are_compared_by_their_elements():
    check_equivalence(GroupAnswer(), ["#### (1, 2", "#### {", "#### ,", "#### }{"], same=GROUPS)


def test_letters_are_read_in_the_forms_that_models_write():
    check_equivalence(MultipleChoice(), ["A dog", "", "none", "F"], same=CHOICES)
    for text in ("A dog barked.", "#### F", "#### AB", "I am sure", "#### Apple", "option", ""):
        assert MultipleChoice().key(text, PROBLEM) is None


def test_an_options_text_counts_as_its_letter():
    problem = Problem("p", "?", metadata={"choices": ["a cat", "a dog", "12", "12"]})
    choice = MultipleChoice("ABCD")
    assert choice.key("#### A dog", problem) == choice.key("#### b", problem) == "B"
    assert choice.key("#### 12", problem) is None  # two options have this text


def test_letters_can_be_others_and_are_checked():
    assert MultipleChoice("ABCDEFGHIJ").key("#### J", PROBLEM) == "J"
    assert registry.build("equivalence", "choice:letters=AB").key("#### C", PROBLEM) is None
    for letters in ("", "abc", "AAB", "A B"):
        with pytest.raises(ConfigError, match="letters="):
            MultipleChoice(letters)


def test_text_is_compared_without_its_dress():
    same = [
        ("#### Paris", "Answer: **paris**", "so\n\\boxed{\\text{Paris}}", "thus it is\nParis."),
        ("#### New  York",),
    ]
    check_equivalence(TextAnswer(), [], same=same)
    check_equivalence(TextAnswer(whole=True), [], same=[("a  b\n", "A b"), ("#### a b",)])


def test_every_registered_equivalence_keeps_the_contract():
    known = {type(made) for made in READERS} | {CodeBehaviour}
    assert {entry.factory for entry in registry.techniques("equivalence")} <= known


ADD = Problem("add", "?", metadata={"inputs": ["1 2\n", "-5 5\n"]})
CALLS = Problem("double", "?", metadata={"function": "double", "inputs": [[1], ["ab"], [[]]]})


def block(source):
    """As a model writes it."""
    return f"Here is the code:\n```python\n{source}\n```\nIt works."


def test_programs_that_behave_alike_are_one_answer():
    same = [
        (
            block("a, b = map(int, input().split())\nprint(a + b)"),
            block("print(sum(int(word) for word in input().split()))"),
            block("import sys\nsys.stdout.write(str(sum(map(int, sys.stdin.read().split()))) + '  \\n\\n')"),
        ),
        (block("print(3)"),),
        (block("a, b = map(int, input().split())\nprint(a + b if a > 0 else 1 / 0)"),),
    ]
    check_equivalence(CodeBehaviour(), ["no code", block("1 / 0"), block("broken(")], ADD, same=same)


def test_functions_are_compared_by_the_values_of_calls():
    same = [
        (
            block("def double(x):\n    return x + x"),
            block("print('loud')\ndouble = lambda x: x * 2"),
            "first\n```python\nwrong\n```\nthen\n```py\ndef double(x): return 2 * x\n```",
        ),
        (block("def double(x):\n    return 2 * int(x)"),),
    ]
    check_equivalence(CodeBehaviour(), [block("def other(x): pass")], CALLS, same=same)


def test_a_program_that_never_gives_anything_is_no_answer():
    code = CodeBehaviour(Sandbox(wall_s=1, cpu_s=1))
    for text in (
        "no block at all (",
        block("while True: pass"),
        block("1/0"),
        "```js\nprint(1)\n```",
        "```\n\n```",
        "",
    ):
        assert code.key(text, ADD) is None
    assert code.key(block("def double(x):\n    while x == 'ab': pass\n    return x"), CALLS) == (
        "gave 1",
        "failed",
        "failed",
    )


def test_code_without_inputs_is_an_error_of_the_task():
    with pytest.raises(TaskError, match="metadata\\['inputs'\\]"):
        CodeBehaviour().key(block("print(1)"), PROBLEM)
    with pytest.raises(TaskError, match="no name of a function"):
        CodeBehaviour().key(block("x=1"), Problem("p", "?", metadata={"inputs": [[1]], "function": "a b"}))


def test_plain_expressions_need_no_extra_and_latex_names_it(monkeypatch):
    monkeypatch.setattr(symbolic, "LATEX_PARSER", "no_such_parser")
    assert MathAnswer().key("#### 2(x+1)", PROBLEM) == MathAnswer().key("#### 2x+2", PROBLEM)
    assert MathAnswer().key("\\boxed{\\frac{3}{4}}", PROBLEM) == Fraction(3, 4)
    with pytest.raises(CapabilityError, match="pip install 'ramify\\[math\\]'"):
        MathAnswer().key("\\boxed{\\sqrt{17}}", PROBLEM)


def test_an_expression_that_outlasts_its_limits_costs_the_worker_and_nothing_else(monkeypatch):
    monkeypatch.setattr(symbolic, "_is_too_much", lambda text: False)
    monkeypatch.setattr(symbolic, "WORKER_CPU_S", 1)
    symbolic._evaluated.cache_clear()
    symbolic._the_worker.close()
    try:
        towers = ["((10^{999})^{999})^{9999}", "9^{9^{9^{9}}}+\\sqrt{2}", "9**9**9**9", "(x+1)^{2^{2^{2^{9}}}}"]
        for text in towers:
            key = MathAnswer().key(f"\\boxed{{{text}}}", PROBLEM)
            assert isinstance(key, str) or key[0] in ("value", "values")
        assert MathAnswer().key("\\boxed{\\sqrt{4}}", PROBLEM) == 2
    finally:
        symbolic._evaluated.cache_clear()
        symbolic._the_worker.close()


def test_the_worker_is_shared_by_threads_and_started_again_after_it_died():
    symbolic._evaluated.cache_clear()
    keys = {}

    def ask(i):
        keys[i] = MathAnswer().key(f"#### {i % 5}x + 1", PROBLEM)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    symbolic._the_worker.close()
    for thread in threads:
        thread.join()
    assert len({keys[i] for i in range(20)}) == 5
    assert keys[0] == 1


def test_nothing_of_an_answer_is_executed(tmp_path):
    target = tmp_path / "made"
    for text in (
        f"open({str(target)!r}, 'w')",
        "__import__('os').getpid()",
        "(1).real",
        "[x for x in (1,)]",
        "1 if 1 else 2",
    ):
        assert isinstance(MathAnswer().key(f"#### {text}", PROBLEM), str | tuple)
    assert not target.exists()


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (lambda text, problem: [text], "cannot be hashed"),
        (lambda text, problem: float("nan"), "not equal to itself"),
        (lambda text, problem: object(), "two keys"),
    ],
)
def test_the_contract_check_finds_what_is_wrong(broken, law):
    with pytest.raises(AssertionError, match=law):
        check_equivalence(KeyedBy(broken), ["1", "2"])


def test_the_contract_check_finds_a_relation_that_is_none():
    class Near(float):
        """Equal when close: not transitive."""

        def __eq__(self, other):
            return abs(float(self) - float(other)) <= 1

        def __hash__(self):
            return 0

    with pytest.raises(AssertionError, match="not transitive"):
        check_equivalence(KeyedBy(lambda text, problem: Near(text)), ["1", "2", "3"])
    with pytest.raises(AssertionError, match="different answers have one key"):
        check_equivalence(KeyedBy(lambda text, problem: 1), [], same=[("a",), ("b",)])
    with pytest.raises(AssertionError, match="should be one answer"):
        check_equivalence(KeyedBy(lambda text, problem: text), [], same=[("a", "b")])
    with pytest.raises(AssertionError, match="no answer is read"):
        check_equivalence(KeyedBy(lambda text, problem: None), [], same=[("a", "b")])


def test_hostile_texts_are_hostile():
    assert len(HOSTILE_TEXTS) == len(set(HOSTILE_TEXTS)) > 20
