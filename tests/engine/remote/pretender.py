"""A process that takes the place of an engine's, and misbehaves as its first argument says. It loads no model."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time

import msgspec

from ramify.config import EngineConfig
from ramify.engine.remote import messages, process
from ramify.engine.remote.messages import Answer, Failed, Fault, Hello, News, Ready
from ramify.engine.stats import EngineStats
from ramify.models.config import load_config
from ramify.models.hub import resolve_model

way = sys.argv[1]
start = process._read_start()
pipe = process.Pipe()
threading.Thread(target=process._end_with_client, args=(start.address,), daemon=True).start()
logging.basicConfig(level=start.log_level, handlers=[process.PipeHandler(pipe)], force=True)
line = process.Line(start.address)
if way == "silent at the start":
    time.sleep(60)
pulse = process.Pulse(pipe, start.heartbeat_s)
if way == "wrong token":
    line.send(Hello(b"guessed", messages.VERSION))
    time.sleep(60)
if way == "no hello":
    line.send(Failed(Fault("EngineError", "hello?")))
    time.sleep(60)
line.send(Hello(start.token, "0.0.0" if way == "wrong version" else messages.VERSION))
if way == "cannot load":
    line.send(Failed(Fault("CheckpointError", "a tensor is missing")))
    line.close()
    sys.exit(1)
stats = EngineStats(blocks_total=7)
folder = resolve_model("nano")
line.send(Ready(EngineConfig(), load_config(folder), 512, str(folder), "a pool", stats))
while True:
    (frame,) = line.receive(wait=True)[:1]
    for command in messages.read_frame(frame):
        line.send(News([Answer(command.number)], [], stats))
        said = messages.read_command(command.command)
        if isinstance(said, messages.Stop):
            line.close()
            os._exit(0)
        if isinstance(said, messages.Drop):
            continue
        if way == "raises":
            logging.getLogger("somewhere").warning("about to fail")
            line.send(Failed(Fault("EngineError", "RuntimeError: the device caught fire")))
            line.close()
            os._exit(1)
        if way == "garbage":
            line._socket.send(b"\x93\xa4news")
        if way == "huge":
            line._socket.send(b"x" * (messages.MAX_FRAME_BYTES + 1))
        if way == "not a message":
            line._socket.send(msgspec.msgpack.encode({"type": "news"}))
        if way == "stopped":
            time.sleep(0.3)  # until the answer is out
            os.kill(os.getpid(), 19)
