"""The security record of inference servers: every class that can concern ramify, tried on a server as it is served.

The threat model (`docs/guides/security.md`) names the test of each class.
"""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import pickle
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest

from ramify import LLM, SamplingParams
from ramify.config import EngineConfig
from ramify.errors import ConfigError, ModelError, RamifyError
from ramify.kv.prefix_cache import child_digest, root_digest
from ramify.models.checkpoint import open_checkpoint
from ramify.serving.admin import create_admin_app
from ramify.serving.app import create_app
from ramify.serving.config import ServerConfig
from ramify.serving.edge import OPEN_PATHS
from ramify.serving.limits import Limits
from ramify.serving.server import Server
from ramify.text.chat_template import ChatTemplate
from ramify.text.tool_calls import ToolCallParser, tool_format
from ramify.text.tool_calls.families import FAMILIES
from tests.serving.edge_server import QUESTION, Running, bearer, exchange, is_error, post, raw, running, status_of
from tests.text.tool_calls.samples import CALLS, TOOLS, WRITTEN

SOURCE = Path(__file__).parents[2] / "src" / "ramify"
KEY, OTHER_KEY, ADMIN_KEY = "the-key-of-tenant-one", "the-key-of-tenant-two", "the-key-of-the-admin"
MESSAGES = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    """A server with two tenants, an admin, and limits of its operator's own."""
    keys: dict[str, Any] = {"api_key": (KEY, OTHER_KEY), "admin_key": ADMIN_KEY}
    limits = Limits(max_n=8, max_logprobs=5, max_tokens=400, max_stop=3, max_body_bytes=2**21)
    with running(ServerConfig({"nano": "nano"}, port=0, admin_port=0, limits=limits, **keys)) as server:
        yield server


def chat(server: Running, body: dict[str, Any] | None = None, key: str = KEY) -> httpx.Response:
    """A chat request under a key."""
    whole = {"model": "nano", "messages": MESSAGES, "max_tokens": 4, "seed": 1, **(body or {})}
    return post(f"{server.url}/v1/chat/completions", whole, bearer(key))


def still_serves(server: Running) -> bool:
    """Whether the server answers, and holds nothing of what was before."""
    answered = chat(server).status_code == 200
    stats = server.server.models.stats()["nano"]
    return answered and stats.running == stats.waiting == stats.parked == stats.blocks_used == 0


@cache
def _nodes() -> list[tuple[str, ast.AST]]:
    """The imports and calls of the whole source, with the file that each stands in."""
    texts = {str(path.relative_to(SOURCE)): path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")}
    return [
        (file, node)
        for file, text in texts.items()
        if _OF_INTEREST.search(text)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)
    ]


def _imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    return {node.module or ""} if isinstance(node, ast.ImportFrom) else set()


# --- Code from data: pickle, weights, remote code, templates ---

_CODE_MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code", "codeop"}
_CODE_CALLS = {"eval", "exec", "compile", "__import__"}
_CODE_ATTRIBUTES = {("torch", "load"), ("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load")}
_CODE_METHODS = {"recv_pyobj", "send_pyobj", "recv_serialized"}
_CLIENTS = {"httpx", "httpx2", "requests", "urllib3", "aiohttp", "urllib.request", "http.client", "openai", "ftplib"}
_OF_INTEREST = re.compile(
    rf"^\s*(import|from) ({'|'.join(sorted({*_CODE_MODULES, *_CLIENTS, 'jinja2'}))})\b"
    rf"|(?<![.\w])({'|'.join(sorted(_CODE_CALLS))}|hash)\(|\.({'|'.join(sorted(_CODE_METHODS))})\("
    r"|\b(torch|yaml)\.\w*load\(|\b(allow_pickle|trust_remote_code)=",
    re.MULTILINE,
)
"""Files without any of this need no parsing."""
_MAY_RUN_CODE = {"scoring/sandbox_launcher.py"}
"""Runs programs that a model wrote, in a process without rights: that is what it is for."""


def _becomes_code(node: ast.AST) -> bool:
    if any(name.split(".")[0] in _CODE_MODULES for name in _imported(node)):
        return True
    if not isinstance(node, ast.Call):
        return False
    call = node.func
    if isinstance(call, ast.Name) and call.id in _CODE_CALLS:
        return True
    owner = call.value.id if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name) else ""
    if isinstance(call, ast.Attribute) and ((owner, call.attr) in _CODE_ATTRIBUTES or call.attr in _CODE_METHODS):
        return True
    return any(
        keyword.arg in ("allow_pickle", "trust_remote_code")
        and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
        for keyword in node.keywords
    )


def test_pickle_is_nowhere_and_no_data_becomes_code() -> None:
    assert {file for file, node in _nodes() if _becomes_code(node)} <= _MAY_RUN_CODE


def test_weights_are_read_from_safetensors_only(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (marker,)

    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError):
        open_checkpoint(tmp_path)
    assert not marker.exists()


def _set_auto_map(path: Path, kinds: list[str]) -> None:
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "auto_map": dict.fromkeys(kinds, "modeling_evil.Evil")}))


def test_remote_code_of_a_checkpoint_is_ignored(tmp_path: Path) -> None:
    folder, marker = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(SOURCE / "models" / "bundled" / "nano", folder)
    code = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
    for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py", "__init__.py"):
        (folder / name).write_text(code)
    for name, kinds in (("config.json", ["AutoConfig"]), ("tokenizer_config.json", ["AutoTokenizer"])):
        _set_auto_map(folder / name, kinds)
    with LLM(str(folder)) as llm:
        assert llm.chat(MESSAGES, SamplingParams(max_tokens=1))
    _set_auto_map(folder / "config.json", ["AutoModelForCausalLM"])
    with pytest.raises(ModelError, match="never runs"):
        LLM(str(folder))
    assert not marker.exists()
    with pytest.raises(ConfigError, match="never run"):
        EngineConfig.from_options({"trust_remote_code": True})


TEMPLATES_THAT_ESCAPE = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch MARK').read() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ messages.__class__ }}",
    "{{ (messages|attr('__class__')).__base__ }}",
    "{{ messages|map(attribute='__class__')|list }}",
    "{{ lipsum.__globals__['os'].system('touch MARK') }}",
    "{{ raise_exception.__globals__ }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "{% set x = messages.append({'role': 'user'}) %}{{ x }}",
    "{{ namespace.__init__.__globals__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('touch MARK') }}",
    "{{ request.application.__globals__ }}",
]


@pytest.mark.parametrize("source", TEMPLATES_THAT_ESCAPE)
def test_server_side_template_injection_stays_in_the_sandbox(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        text = ChatTemplate(source, {}).render(MESSAGES)
    except RamifyError:
        text = ""
    assert not re.search("<class|function|root:", text)
    assert list(tmp_path.iterdir()) == []


def test_server_side_template_injection_has_one_door() -> None:
    users = {file for file, node in _nodes() if any(name.split(".")[0] == "jinja2" for name in _imported(node))}
    assert users == {"text/chat_template.py"}


# --- Numbers, grammars, parsers: one request never hurts another ---

_NUMBERS = ["-1", "1e400", "NaN", "9223372036854775808", "1" * 5000]


def _numeric_fields(schema: dict[str, Any], name: str) -> list[str]:
    fields = schema["components"]["schemas"][name]["properties"]

    def numeric(field: Any) -> bool:
        kinds = [field, *field.get("anyOf", [])]
        return any(kind.get("type") in ("integer", "number") for kind in kinds)

    return [field for field, about in fields.items() if numeric(about)]


@pytest.mark.parametrize(
    ("path", "request_name", "start"),
    [
        ("/v1/chat/completions", "ChatRequest", '{"model":"nano","messages":[{"role":"user","content":"1"}],'),
        ("/v1/completions", "CompletionRequest", '{"model":"nano","prompt":"1",'),
    ],
)
def test_negative_huge_and_odd_numbers_in_every_numeric_field_are_answered(
    path: str, request_name: str, start: str, guarded: Running
) -> None:
    headers = {"content-type": "application/json", **bearer(KEY)}
    with httpx.Client(base_url=guarded.url, headers=headers, timeout=60) as client:
        schema = client.get("/openapi.json").json()
        fields = _numeric_fields(schema, request_name)
        assert len(fields) > 10
        for field in fields:
            for number in _NUMBERS:
                rest = "" if field == "max_tokens" else '"max_tokens":1,'
                response = client.post(path, content=f'{start}{rest}"{field}":{number}}}'.encode())
                assert response.status_code in (200, 400, 403), (field, number[:20], response.text[:300])
                assert response.status_code == 200 or is_error(response), (field, number[:20])
    assert still_serves(guarded)


_FORMS = [
    {"structured_outputs": {"regex": "(a+)+$"}},
    {"structured_outputs": {"regex": "(x{1,1000}){1,1000}"}},
    {"structured_outputs": {"regex": "((((((((((a{1,10}){1,10}){1,10}){1,10}){1,10}){1,10}){1,10}){1,10}){1,10})"}},
    {"structured_outputs": {"regex": "["}},
    {"structured_outputs": {"regex": "(?=a)b"}},
    {"structured_outputs": {"regex": "a" * 100_000}},
    {"structured_outputs": {"grammar": "root ::= root"}},
    {"structured_outputs": {"grammar": "start: start start | start"}},
    {"structured_outputs": {"grammar": "\x01\x02"}},
    {"structured_outputs": {"choice": []}},
    {"structured_outputs": {"json": {"$ref": "#"}}},
    {"structured_outputs": {"json": {"$ref": "http://127.0.0.1:1/schema"}}},
    {"structured_outputs": {"json": {"$ref": "file:///etc/passwd"}}},
    {"structured_outputs": {"json": {"type": "string", "pattern": "(a|a)*$^["}}},
    {"structured_outputs": {"json": {"type": "nonsense"}}},
    {"structured_outputs": {"json": {"enum": list(range(100_000))}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"minItems": -1, "type": []}}}},
    {"response_format": {"type": "json_schema"}},
    {"response_format": {"type": "nonsense"}},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "$ref": "#/x"}}}]},
    {"tools": [{"type": "function", "function": {"name": "a b\n", "parameters": {}}}]},
    {"tools": [{"type": "nonsense"}]},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": 7}}], "tool_choice": "required"},
]


def test_bad_schemas_regexes_grammars_and_tools_fail_alone(guarded: Running) -> None:
    for form in _FORMS:
        response = chat(guarded, {**form, "max_tokens": 1})
        assert response.status_code in (200, 400, 413), (str(form)[:100], response.text[:300])
        assert response.status_code == 200 or is_error(response), (str(form)[:100], response.text[:300])
    assert still_serves(guarded)


@pytest.mark.parametrize("family", sorted(family.name for family in FAMILIES))
def test_parsers_of_answers_take_linear_time(family: str) -> None:
    # one that goes back over what it has read would not come to an end on these
    begun, many = WRITTEN[family](CALLS)[:60], 4000
    for text in (begun[:20] * 200, begun + "{" * many, begun + "[" * many, begun + '"' + "\\" * many, "<" * many):
        reader = ToolCallParser(tool_format(family), TOOLS)
        for start in range(0, len(text), 50):
            reader.push(text[start : start + 50])
        reader.finish()


@pytest.mark.parametrize(
    "body",
    [
        {"n": 10**6},
        {"n": 9},
        {"top_logprobs": 6, "logprobs": True},
        {"max_tokens": 401},
        {"max_tokens": 2**40},
        {"stop": ["a", "b", "c", "d"]},
        {"stop": ["x"] * 1000},
        {"stop": "x" * 100_000},
        {"stop_token_ids": [1] * 10_000},
        {"logit_bias": {str(token): 1 for token in range(5000)}},
        {"messages": MESSAGES * 5000},
        {"tools": [{"type": "function", "function": {"name": f"f{place}"}} for place in range(1000)]},
        {"metadata": {str(place): "x" for place in range(1000)}},
        {"user": "x" * 100_000},
        {"model": "x" * 100_000},
        {"cache_salt": "x" * 100_000},
    ],
    ids=lambda body: str(body)[:40],
)
def test_unbounded_n_and_other_counts_are_refused(body: dict[str, Any], guarded: Running) -> None:
    response = chat(guarded, body)
    assert response.status_code in (400, 404), response.text[:300]
    assert is_error(response)
    assert len(response.content) < 4096, "the answer repeats what was sent"


@pytest.mark.parametrize(
    "field", ["prompt_embeds", "image_embeds", "kv_transfer_params", "logits_processors", "vllm_xargs"]
)
def test_tensors_and_objects_of_clients_are_refused(field: str, guarded: Running) -> None:
    for value in ("gASVAAAAAA==", {"class": "os.system", "args": ["true"]}, ["os.system"]):
        response = chat(guarded, {field: value})
        assert (response.status_code, is_error(response)) == (400, True)


def test_what_the_limits_allow_is_served(guarded: Running) -> None:
    body = {"n": 8, "top_logprobs": 5, "logprobs": True, "max_tokens": 2, "stop": ["a", "b", "c"]}
    assert len(chat(guarded, body).json()["choices"]) == 8


def test_long_texts_to_tokenize_are_refused(guarded: Running) -> None:
    for path, body in (("tokenize", {"prompt": "x " * 600_000}), ("detokenize", {"tokens": [5] * 1_048_577})):
        response = post(f"{guarded.url}/{path}", body, bearer(KEY))
        assert response.status_code in (400, 413)
        assert is_error(response)


def test_unbounded_lists_of_prompts_are_refused(guarded: Running) -> None:
    for body in ({"prompt": ["x"] * 3000}, {"prompt": ["x"] * 300, "n": 8}, {"prompt": "x", "best_of": 10**6}):
        response = post(f"{guarded.url}/v1/completions", {"model": "nano", "max_tokens": 1, **body}, bearer(KEY))
        assert (response.status_code, is_error(response)) == (400, True)


@pytest.mark.parametrize(
    "arguments",
    [
        {"messages": []},
        {"tools": [1]},
        {"add_generation_prompt": False},
        {"chat_template": "{{ 1 }}"},
        {"bos_token": "x"},
        {"__class__": 1},
        {"enable_thinking": {"a": [1]}},
        {"date_string": "x" * 10**6},
        {str(place): 1 for place in range(1000)},
    ],
    ids=lambda arguments: str(arguments)[:40],
)
def test_chat_template_kwargs_are_an_allowlist(arguments: dict[str, Any], guarded: Running) -> None:
    response = chat(guarded, {"chat_template_kwargs": arguments})
    assert (response.status_code, is_error(response)) == (400, True), response.text[:300]


def test_chat_templates_of_clients_are_refused(guarded: Running) -> None:
    assert chat(guarded, {"chat_template": "{% for i in range(10**9) %}x{% endfor %}"}).status_code == 400


def test_odd_text_is_text(guarded: Running) -> None:
    for text in ("\ud800", "\x00", "\u202e" * 9, "<|im_start|>system\n", "\U0010ffff", "", "{{ 7*7 }}", "%s%n" * 9):
        response = chat(guarded, {"messages": [{"role": "user", "content": text}], "max_tokens": 1})
        assert response.status_code in (200, 400), (text, response.text[:300])
        whole = {"model": "nano", "prompt": text or " ", "max_tokens": 1}
        response = post(f"{guarded.url}/v1/completions", whole, bearer(KEY))
        assert response.status_code in (200, 400), (text, response.text[:300])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"7",
        b"\xff\xfe",
        b"{}" * 2,
        b'{"model":',
        b"NaN",
        b"[" * 10_000,
        b'{"a":' * 10_000,
    ],
)
def test_malformed_bodies_are_a_400_in_the_usual_form(body: bytes, guarded: Running) -> None:
    for path in ("/v1/chat/completions", "/v1/completions", "/tokenize"):
        response = post(f"{guarded.url}{path}", body, bearer(KEY))
        assert (response.status_code, is_error(response)) == (400, True), (path, response.text[:300])


# --- Where the server connects to, and who connects to it ---


def test_server_side_request_forgery_nothing_that_a_client_names_is_fetched(guarded: Running) -> None:
    with socket.create_server(("127.0.0.1", 0)) as canary:
        url = f"http://127.0.0.1:{canary.getsockname()[1]}/x"
        parts: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}},
            {"type": "video_url", "video_url": {"url": url}},
            {"type": "file", "file": {"file_id": url}},
        ]
        for part in parts:
            response = chat(guarded, {"messages": [{"role": "user", "content": [part]}]})
            assert (response.status_code, is_error(response)) == (400, True), response.text[:300]
        schema = {"type": "object", "properties": {"a": {"$ref": url}}}
        chat(guarded, {"structured_outputs": {"json": schema}})
        chat(guarded, {"model": url})
        canary.settimeout(0.05)
        with pytest.raises(TimeoutError):
            canary.accept()


def test_server_side_request_forgery_the_server_has_no_http_client() -> None:
    users = {file for file, node in _nodes() if _imported(node) & _CLIENTS}
    assert not [file for file in users if file.startswith(("serving/", "text/", "engine/"))]


def test_sockets_between_processes_are_bound_to_this_machine_only(guarded: Running) -> None:
    process = psutil.Process()
    for each in (process, *process.children(recursive=True)):
        for connection in each.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip in ("127.0.0.1", "::1"), connection


# --- Prefix cache ---


def test_predictable_prefix_hash_a_block_is_named_by_a_cryptographic_hash_of_all_before_it() -> None:
    one = child_digest(child_digest(root_digest("tenant"), (1, 2)), (3, 4))
    assert one != child_digest(child_digest(root_digest("tenant"), (1, 2, 3)), (4,))
    assert one != child_digest(child_digest(root_digest("other"), (1, 2)), (3, 4))
    assert len(one) >= 16
    calls = [(file, node.func) for file, node in _nodes() if isinstance(node, ast.Call)]
    assert not [
        file for file, call in calls if file.startswith("kv/") and isinstance(call, ast.Name) and call.id == "hash"
    ]


def test_prefix_timing_side_channel_tenants_share_no_cached_prefix(guarded: Running) -> None:
    messages = [{"role": "user", "content": "A secret that nobody else may learn of by its speed. " * 4}]

    def cached(key: str, **more: Any) -> int:
        usage = chat(guarded, {"messages": messages, **more}, key).json()["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    assert cached(KEY) == 0
    assert cached(KEY) > 0  # the cache works
    assert cached(OTHER_KEY) == 0
    assert cached(OTHER_KEY, cache_salt="x") == 0
    salt = guarded.server.keys.identify(KEY.encode()).cache_salt
    assert cached(OTHER_KEY, cache_salt=salt) == 0  # a client's salt cannot make it another tenant
    assert cached(KEY, cache_salt="my own") == 0


def test_the_salt_of_a_tenant_changes_no_token(guarded: Running) -> None:
    texts = {
        chat(guarded, {"max_tokens": 12, "seed": 5}, key).json()["choices"][0]["message"]["content"]
        for key in (KEY, OTHER_KEY, KEY)
    }
    assert len(texts) == 1


# --- Keys and the admin's port ---


def _routes(app: Any) -> list[tuple[str, str]]:
    """Every method and path of an application, whatever kind of route it is; a path's parameters get a value."""
    found: list[tuple[str, str]] = []
    for route in app.routes:
        if hasattr(route, "original_router"):
            found += _routes(route.original_router)
        else:
            path = re.sub(r"{[^}]*}", "x", route.path)
            found += [(method, path) for method in getattr(route, "methods", None) or {"GET"}]
    return found


def test_every_route_is_behind_a_key_also_those_to_come(guarded: Running) -> None:
    with httpx.Client(base_url=guarded.url) as client:
        routes = _routes(create_app(guarded.server))
        assert {"/v1/models", "/metrics", "/openapi.json", "/docs"} <= {path for _, path in routes}
        unknown = [("GET", "/nothing"), ("DELETE", "/v1/models"), ("GET", "/health/"), ("PUT", "/v1/files")]
        unknown += [
            ("GET", "/HEALTH"),
            ("GET", "/%68ealth/../v1/models"),
            ("OPTIONS", "/v1/models"),
            ("PUT", "/v1/files"),
        ]
        for method, path in routes + unknown:
            response = client.request(method, path)
            if path in OPEN_PATHS:
                assert response.status_code != 401, path
            else:
                assert response.status_code == 401, (method, path)
                assert response.headers["www-authenticate"] == "Bearer"
                assert method == "HEAD" or is_error(response)
        for target in ("//health", "/v1/../health", "/health/../v1/models", "*"):
            with guarded.raw() as connection:
                answer = exchange(connection, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert status_of(answer) == 401, target
    assert all(path.count("/") == 1 or path.startswith("/assets/") for path in OPEN_PATHS)


def test_every_route_takes_a_key_and_unknown_paths_are_then_a_404(guarded: Running) -> None:
    with httpx.Client(base_url=guarded.url, headers=bearer(KEY)) as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "nano"
        response = client.get("/nothing")
        assert (response.status_code, is_error(response)) == (404, True)
    assert httpx.get(f"{guarded.url}/v1/models", headers={"x-api-key": KEY}).status_code == 200


def test_the_admin_port_takes_the_admin_key_only_and_the_public_port_never_does(guarded: Running) -> None:
    routes = _routes(create_admin_app(guarded.server))
    assert ("POST", "/keys") in routes
    with httpx.Client() as client:
        for method, path in routes:
            for headers in ({}, bearer(KEY), bearer("wrong"), {"x-api-key": KEY}):
                response = client.request(method, f"{guarded.admin_url}{path}", headers=headers)
                assert response.status_code == 401, (method, path)
                assert method == "HEAD" or is_error(response)
            response = client.request(method, f"{guarded.url}{path}", headers=bearer(ADMIN_KEY))
            assert response.status_code == 401 or path in OPEN_PATHS, (method, path)
        public = {path for _, path in _routes(create_app(guarded.server))}
        shared = {path for _, path in routes} & public - {"/openapi.json", "/metrics", *OPEN_PATHS}
        assert shared == set()
        assert client.get(f"{guarded.admin_url}/stats", headers=bearer(ADMIN_KEY)).status_code == 200


def test_keys_made_by_the_admin_have_their_limits(guarded: Running) -> None:
    admin = {"headers": bearer(ADMIN_KEY), "timeout": 60}

    def make(name: str, **limits: Any) -> str:
        made = httpx.post(f"{guarded.admin_url}/keys", json={"name": name, **limits}, **admin)
        assert made.status_code == 201, made.text
        return str(made.json()["key"])

    none = make("no-model", models=[])
    assert httpx.get(f"{guarded.url}/v1/models", headers=bearer(none)).json()["data"] == []
    response = chat(guarded, key=none)
    assert (response.status_code, is_error(response)) == (403, True)
    urgent = chat(guarded, {"priority": -1}, none)
    assert urgent.status_code == 403

    slow = make("slow", requests_per_minute=2, tokens_per_minute=1000)
    first = chat(guarded, key=slow)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert chat(guarded, {"priority": -1}, slow).status_code == 403
    third = chat(guarded, key=slow)
    assert (third.status_code, is_error(third)) == (429, True)
    assert int(third.headers["retry-after"]) >= 1

    spent = make("spent", tokens_per_minute=30)
    used = chat(guarded, key=spent)
    assert used.json()["usage"]["total_tokens"] == 29
    assert chat(guarded, {"max_tokens": 8}, spent).status_code == 200  # one was left: the last one may go into debt
    refused = chat(guarded, key=spent)
    assert (refused.status_code, refused.headers["x-ratelimit-remaining-tokens"]) == (429, "0")

    listed = httpx.get(f"{guarded.admin_url}/keys", **admin)
    assert {"no-model", "slow", "spent"} <= {key["name"] for key in listed.json()["keys"]}
    assert slow not in listed.text
    assert httpx.delete(f"{guarded.admin_url}/keys/slow", **admin).status_code == 200
    assert chat(guarded, key=slow).status_code == 401
    assert httpx.delete(f"{guarded.admin_url}/keys/slow", **admin).status_code == 404
    for bad in (
        {"name": "a b"},
        {"name": "slow"},
        {"name": "x", "requests_per_minute": 0},
        {"name": "x", "nonsense": 1},
    ):
        assert httpx.post(f"{guarded.admin_url}/keys", json=bad, **admin).status_code == 400


def test_a_pause_holds_requests_back_and_loses_none(guarded: Running) -> None:
    admin = {"headers": bearer(ADMIN_KEY)}
    assert httpx.post(f"{guarded.admin_url}/pause", **admin).json()["paused"] is True
    answers: list[httpx.Response] = []
    asker = threading.Thread(target=lambda: answers.append(chat(guarded)))
    asker.start()
    asker.join(0.2)
    assert answers == []
    assert httpx.post(f"{guarded.admin_url}/resume", **admin).json()["paused"] is False
    asker.join()
    assert answers[0].status_code == 200


def test_the_admin_ends_a_request_and_its_client_is_told(guarded: Running) -> None:
    admin = {"headers": bearer(ADMIN_KEY), "timeout": 60}
    wanted = {"model": "nano", "messages": MESSAGES, "max_tokens": 400, "ignore_eos": True, "stream": True}
    with httpx.stream(
        "POST", f"{guarded.url}/v1/chat/completions", json=wanted, headers=bearer(KEY), timeout=60
    ) as answer:
        lines = answer.iter_lines()
        name = json.loads(next(lines).removeprefix("data: "))["id"]
        aborted = httpx.post(f"{guarded.admin_url}/abort_requests", json={"request_ids": [name, "other"]}, **admin)
        assert aborted.json() == {"aborted": [name]}
        assert '"aborted"' in "".join(lines)
    assert still_serves(guarded)


def test_the_admin_empties_the_prefix_cache(guarded: Running) -> None:
    words = [{"role": "user", "content": "words that are the same each time, again and again and again"}]

    def cached() -> int:
        return int(chat(guarded, {"messages": words}).json()["usage"]["prompt_tokens_details"]["cached_tokens"])

    cached()
    assert cached() > 0
    httpx.post(f"{guarded.admin_url}/reset_prefix_cache", headers=bearer(ADMIN_KEY)).raise_for_status()
    assert cached() == 0


def test_the_admin_sees_the_models_and_is_told_of_one_that_is_not_there(guarded: Running) -> None:
    admin = {"headers": bearer(ADMIN_KEY), "timeout": 60}
    assert httpx.post(f"{guarded.admin_url}/models/unload", json={"model": "none"}, **admin).status_code == 404
    assert httpx.get(f"{guarded.admin_url}/models", **admin).json()["models"]["nano"]["state"] == "ready"


# --- Browsers ---


def test_cross_site_requests_and_rebound_names_do_not_reach_a_server_without_keys(url: str) -> None:
    models = f"{url}/v1/models"
    assert httpx.get(models).status_code == 200
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"origin": "http://[::1"}):
        response = httpx.get(models, headers=headers)
        assert (response.status_code, is_error(response)) == (403, True)
        assert "access-control-allow-origin" not in response.headers
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::1].evil.example", ""):
        with raw(url) as connection:
            answer = exchange(connection, f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert status_of(answer) == 400, host
    assert httpx.get(models, headers={"origin": url}).status_code == 200  # its own page


async def test_cors_is_for_the_named_pages_and_without_credentials() -> None:
    config = ServerConfig(
        {"nano": "nano"}, api_key=(KEY,), allowed_origins=("https://a.example",), storage_url=":memory:"
    )
    transport = httpx.ASGITransport(create_app(Server(config)))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        asked = {"origin": "https://a.example", "access-control-request-method": "POST"}
        preflight = await client.options("/v1/chat/completions", headers=asked)
        assert preflight.headers["access-control-allow-origin"] == "https://a.example"
        assert "access-control-allow-credentials" not in preflight.headers
        stranger = await client.options("/v1/models", headers={**asked, "origin": "https://b.example"})
        assert "access-control-allow-origin" not in stranger.headers
        refused = await client.get("/v1/models", headers={"origin": "https://a.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://a.example"


# --- What the server tells ---


async def test_error_bodies_have_nothing_of_the_inside() -> None:
    app = create_app(Server(ServerConfig({"nano": "nano"}, storage_url=":memory:")))

    @app.get("/fails")
    async def fails() -> None:
        raise RuntimeError("a secret in /etc/secret")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.get("/fails")
    assert response.status_code == 500
    assert is_error(response)
    assert "secret" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"


def test_logs_have_no_text_of_prompts_or_answers_and_no_keys(
    guarded: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="ramify")
    marked = "marked words that must not be kept"
    chat(guarded, {"messages": [{"role": "user", "content": marked}]})
    chat(guarded, {"messages": [{"role": "user", "content": marked}], "structured_outputs": {"regex": "["}})
    chat(guarded, {"messages": [{"role": marked, "content": marked}]})
    chat(guarded, key="a-wrong-key-with-a-mark")
    said = "\n".join(f"{record.getMessage()} {vars(record).get('fields')}" for record in caplog.records)
    assert "/v1/chat/completions" in said
    assert marked not in said
    assert KEY not in said
    assert "a-wrong-key" not in said


def test_an_id_of_a_client_cannot_write_into_the_log(guarded: Running) -> None:
    headers = {**bearer(KEY), "x-request-id": "x\tlevel=error message=forged"}
    response = httpx.get(f"{guarded.url}/v1/models", headers=headers)
    assert "forged" not in response.headers["x-request-id"]


# --- Tenants ---


def test_no_tenant_sees_what_another_stored(guarded: Running) -> None:
    line = (
        b'{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"model":"nano","prompt":"1","max_tokens":1}}'
    )
    form = {"files": {"file": ("a.jsonl", line)}, "data": {"purpose": "batch"}}
    stored = httpx.post(f"{guarded.url}/v1/files", headers=bearer(KEY), **form).json()["id"]
    for path in (f"/v1/files/{stored}", f"/v1/files/{stored}/content"):
        assert httpx.get(f"{guarded.url}{path}", headers=bearer(KEY)).status_code == 200
        response = httpx.get(f"{guarded.url}{path}", headers=bearer(OTHER_KEY))
        assert (response.status_code, is_error(response)) == (404, True)
    assert httpx.delete(f"{guarded.url}/v1/files/{stored}", headers=bearer(OTHER_KEY)).status_code == 404
    batch = {"input_file_id": stored, "endpoint": "/v1/completions", "completion_window": "24h"}
    assert post(f"{guarded.url}/v1/batches", batch, bearer(OTHER_KEY)).status_code in (400, 404)
    assert httpx.get(f"{guarded.url}/v1/files", headers=bearer(OTHER_KEY)).json()["data"] == []


def test_requests_of_two_tenants_with_one_id_do_not_meet(guarded: Running) -> None:
    answers: list[int] = []

    def ask(key: str) -> None:
        headers = {**bearer(key), "x-request-id": "the-same-id"}
        body = {"model": "nano", "messages": MESSAGES, "max_tokens": 30}
        answers.append(post(f"{guarded.url}/v1/chat/completions", body, headers).status_code)

    askers = [threading.Thread(target=ask, args=(key,)) for key in (KEY, OTHER_KEY, KEY)]
    for each in askers:
        each.start()
    for each in askers:
        each.join()
    assert answers == [200, 200, 200]


# --- Crowds ---


def test_disconnect_storm_clients_that_stream_and_vanish_leave_nothing(guarded: Running) -> None:
    wanted = {"model": "nano", "messages": MESSAGES, "max_tokens": 300, "ignore_eos": True, "stream": True}
    body = json.dumps(wanted).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Type: application/json\r\n"
    whole = head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    clients = [guarded.raw() for _ in range(100)]
    for client in clients:
        client.sendall(whole)
    for place, client in enumerate(clients):
        if place % 4 == 0:
            client.recv(16)  # some hear the beginning of their answer
        client.close()

    async def settled() -> None:
        while guarded.server.draining.running or guarded.server.models.stats()["nano"].blocks_used:
            await asyncio.sleep(0.01)

    guarded.ask(settled)
    assert still_serves(guarded)


def test_the_threat_model_names_tests_that_are_there() -> None:
    guide = (SOURCE.parents[1] / "docs" / "guides" / "security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+?)_?(?:\.\.\.)?`", guide))
    tests = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert len(named) > 25
    assert {name for name in named if f"def {name}" not in tests} == set()
