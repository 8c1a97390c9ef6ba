"""Spend more compute, get more right answers: one problem under growing budgets, with what each answer cost."""

from ramify import LLM
from ramify.evals.tasks import get_task

problem = get_task("word_problems").problem(3)
print(problem.prompt)

with LLM("nano") as llm:
    for budget in (100, 500, 4000):
        result = llm.solve(problem, strategy="best-of-n:n=16", budget=budget)
        ledger = result.ledger
        spent = f"{ledger.generated} generated + {ledger.verifier} verifier tokens"
        print(f"{budget:>5} tokens: answer {result.answer} ({problem.answer} is right), {spent}, {result.stop_reason}")
