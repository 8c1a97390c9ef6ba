// One answer while it comes: its text, the search behind it, what it cost, and how it ended. Plain data, kept on reload.

import { useEffect, useRef, useState } from "preact/hooks";
import { ApiFailure, ask, traceOf, type Message, type Method, type Outcome, type Usage } from "../api/client";
import { parseEvents } from "../trace/events";
import { Tree } from "../trace/tree";

export type RunState = "running" | "done" | "stopped" | "failed" | "interrupted";

export interface Run {
  state: RunState;
  text: string;
  reasoning: string;
  finish: string | null;
  error: string | null;
  usage: Usage | null;
  outcome: Outcome | null;
  seconds: number | null;
}

export const NEW_RUN: Run = {
  state: "running",
  text: "",
  reasoning: "",
  finish: null,
  error: null,
  usage: null,
  outcome: null,
  seconds: null,
};

export interface Question {
  model: string;
  messages: readonly Message[];
  method: Method;
  sampling: Record<string, number>;
}

/** Trees of runs are held beside the data, for they are large and can be fetched again by the trace's id. */
export interface LiveTree {
  tree: Tree;
  version: number;
}

interface Handlers {
  onRun: (run: Run) => void;
  onTree: (tree: Tree) => void;
}

/** Ask a question and tell of everything that comes; ends when the run does, whichever way. */
export async function follow(question: Question, signal: AbortSignal, { onRun, onTree }: Handlers): Promise<void> {
  const started = performance.now();
  const run: Run = { ...NEW_RUN };
  let tree = new Tree();
  let gaps = false;
  const tell = () => onRun({ ...run, seconds: (performance.now() - started) / 1000 });
  try {
    for await (const piece of ask(question.model, question.messages, question.method, question.sampling, signal)) {
      if (piece.kind === "text") run.text += piece.text;
      else if (piece.kind === "reasoning") run.reasoning += piece.text;
      else if (piece.kind === "finish") run.finish = piece.reason;
      else if (piece.kind === "usage") run.usage = piece.usage;
      else if (piece.kind === "outcome") run.outcome = piece.outcome;
      else if (piece.kind === "skipped") gaps = true;
      else if (!gaps) {
        tree.add(piece.event);
        onTree(tree);
        continue;
      }
      tell();
    }
    run.state = "done";
  } catch (error) {
    run.state = signal.aborted ? "stopped" : "failed";
    if (!signal.aborted) run.error = error instanceof ApiFailure ? error.message : `the page failed: ${String(error)}`;
  }
  tell();
  // What was shown live leaves out long texts, and events where there were too many: the stored trace has them all.
  const id = run.outcome?.trace_id;
  if (id) {
    try {
      tree = Tree.of(parseEvents(await traceOf(id)));
      onTree(tree);
    } catch (error) {
      if (!(error instanceof ApiFailure)) throw error;
      run.error = `the trace could not be fetched (${error.message}); the tree is shown as it came`;
      tell();
    }
  }
}

/** One question at a time, with its tree. */
export function useRun(): { run: Run | null; live: LiveTree | null; start: (question: Question) => void; stop: () => void } {
  const [run, setRun] = useState<Run | null>(null);
  const [live, setLive] = useState<LiveTree | null>(null);
  const aborter = useRef<AbortController | null>(null);
  const onTree = useTrees(setLive);
  useEffect(() => () => aborter.current?.abort(), []);
  const stop = () => aborter.current?.abort();
  const start = (question: Question) => {
    stop();
    const mine = new AbortController();
    aborter.current = mine;
    setRun(NEW_RUN);
    setLive(null);
    void follow(question, mine.signal, { onRun: (news) => aborter.current === mine && setRun(news), onTree });
  };
  return { run, live, start, stop };
}

/** A tree that grows is drawn once a frame, however many events came. */
export function useTrees(set: (live: LiveTree) => void): (tree: Tree) => void {
  const waiting = useRef<Tree | null>(null);
  const version = useRef(0);
  return (tree) => {
    const asked = waiting.current !== null;
    waiting.current = tree;
    if (asked) return;
    requestAnimationFrame(() => {
      const latest = waiting.current!;
      waiting.current = null;
      set({ tree: latest, version: ++version.current });
    });
  };
}
