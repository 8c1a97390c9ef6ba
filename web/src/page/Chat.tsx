// A conversation. What was said is kept in the tab, so that a reload loses at most what was on its way.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Method, StrategyCard } from "../api/client";
import { Text } from "../viewer/NodePanel";
import { MethodPicker } from "./MethodPicker";
import { DEFAULT_METHOD } from "./methods";
import { follow, NEW_RUN, useTrees, type LiveTree, type Run } from "./run";
import { RunView } from "./RunView";
import { load, save } from "./session";

interface Turn {
  question: string;
  method: Method;
  run: Run;
}

const KEY = "ramify-chat";
const EXAMPLE = "Use the numbers 3, 7 and 4 to make 25. Use every number exactly once.";
const SAVE_EVERY_MS = 300;

export function Chat({ model, cards }: { model: string; cards: readonly StrategyCard[] }) {
  const [turns, setTurns] = useState<Turn[]>(() => restored());
  const [method, setMethod] = useState<Method>(DEFAULT_METHOD);
  const [temperature, setTemperature] = useState(0.8);
  const [draft, setDraft] = useState("");
  const [early, setEarly] = useState(false);
  const [live, setLive] = useState<LiveTree | null>(null);
  const aborter = useRef<AbortController | null>(null);
  const onTree = useTrees(setLive);
  const running = turns[turns.length - 1]?.run.state === "running";

  useEffect(() => () => aborter.current?.abort(), []);
  // With what is seen, not some time after: a reload may come in between.
  useLayoutEffect(() => {
    const timer = setTimeout(() => save(KEY, turns), SAVE_EVERY_MS);
    const now = () => save(KEY, turns);
    addEventListener("pagehide", now);
    return () => {
      clearTimeout(timer);
      removeEventListener("pagehide", now);
    };
  }, [turns]);

  const askAgain = (before: readonly Turn[], question: string, how: Method) => {
    const mine = new AbortController();
    aborter.current = mine;
    setLive(null);
    setTurns([...before, { question, method: how, run: NEW_RUN }]);
    const messages = [...before.flatMap(said), { role: "user" as const, content: question }];
    void follow({ model, messages, method: how, sampling: { temperature } }, mine.signal, {
      onRun: (run) => aborter.current === mine && setTurns([...before, { question, method: how, run }]),
      onTree: (tree) => aborter.current === mine && onTree(tree),
    });
  };
  const send = () => {
    const question = draft.trim();
    if (question === "" || running) return;
    if (model === "") {
      setEarly(true);
      return;
    }
    setDraft("");
    askAgain(turns, question, method);
  };
  // Sent before the server was there: it goes out when it is.
  useEffect(() => {
    if (!early || model === "") return;
    setEarly(false);
    send();
  }, [early, model]);
  const clear = () => {
    aborter.current?.abort();
    setTurns([]);
    setLive(null);
  };

  return (
    <section class="chat" aria-label="Chat">
      <MethodPicker method={method} cards={cards} onMethod={setMethod} />
      <ol class="turns" aria-live="off">
        {turns.map((turn, i) => (
          <li key={i}>
            <article class="question" aria-label="You">
              <Text text={turn.question} />
            </article>
            <article aria-label="Answer">
              <p class="faint">{turn.method.strategy || "one sample"}</p>
              <RunView
                run={turn.run}
                live={i === turns.length - 1 ? live : null}
                {...(i === turns.length - 1 ? { onRetry: () => askAgain(turns.slice(0, i), turn.question, turn.method) } : {})}
              />
            </article>
          </li>
        ))}
      </ol>
      {turns.length === 0 && (
        <p class="hint">
          Ask something, or start with{" "}
          <button type="button" class="link" onClick={() => setDraft(EXAMPLE)}>
            an example
          </button>
          : the search grows below the answer while it runs.
        </p>
      )}
      <form
        class="composer"
        onSubmit={(event) => {
          event.preventDefault();
          send();
        }}
      >
        <label class="grow">
          Message
          <textarea
            rows={3}
            value={draft}
            placeholder="Enter sends, Shift+Enter starts a line"
            onInput={(event) => setDraft(event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
                event.preventDefault();
                send();
              }
            }}
          />
        </label>
        <label>
          Temperature
          <input
            class="narrow"
            type="number"
            min={0}
            max={2}
            step={0.1}
            value={temperature}
            onInput={(event) => Number.isFinite(event.currentTarget.valueAsNumber) && setTemperature(event.currentTarget.valueAsNumber)}
          />
        </label>
        {running ? (
          <button type="button" onClick={() => aborter.current?.abort()}>
            Stop
          </button>
        ) : (
          <button type="submit" class="primary" disabled={draft.trim() === ""}>
            {early ? "Waiting for the server" : "Send"}
          </button>
        )}
        <button type="button" onClick={clear} disabled={turns.length === 0}>
          New chat
        </button>
      </form>
    </section>
  );
}

function said(turn: Turn): { role: "user" | "assistant"; content: string }[] {
  return [
    { role: "user", content: turn.question },
    { role: "assistant", content: turn.run.text },
  ];
}

function restored(): Turn[] {
  return load<Turn[]>(KEY, []).map((turn) =>
    turn.run.state === "running" ? { ...turn, run: { ...turn.run, state: "interrupted" } } : turn,
  );
}
