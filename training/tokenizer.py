"""The tokenizer: byte-level BPE trained on generated text, digits and line ends always tokens of their own."""

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from ramify.evals.tasks import get_task, task_names

SPECIAL_TOKENS = ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|good|>", "<|bad|>")
VOCABULARY = 768
CONTEXT = 512
# Merges never cross these pieces: a line end, a digit, an operator with its spaces, the answer mark, a word, the rest.
PIECES = r"\n|[0-9]| [-+*/=] |#### |[()]| ?\p{L}+| ?[^\s\p{L}\p{N}]|\p{N}|[^\S\n]+"
# With `continue_final_message` transformers cuts the text after the last message, so <|end|> ends complete turns only.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + message['role'] + ': use system, user or assistant') }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(seed: int, examples: int = 20_000) -> Tokenizer:
    """Train the tokenizer on problems and solutions of every task's train split."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = ["You are a helpful assistant. Solve the problem step by step. Write one operation a line."]
    for name in task_names():
        task = get_task(name)
        for index in range(examples // 2):
            problem = task.problem(index, seed, "train")
            texts += [str(problem.prompt), task.solution(problem)]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json in the form AutoTokenizer loads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "eos_token": "<|end|>",
        "pad_token": "<|end|>",
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
