// The viewer of a file: the trace stands in the page as data, and nothing is fetched.

import { render } from "preact";
import "../style/base.css";
import "../style/viewer.css";
import { parseEvents } from "../trace/events";
import { Tree } from "../trace/tree";
import { visible } from "./marks";
import { Text } from "./NodePanel";
import { Viewer } from "./Viewer";

function Page({ tree }: { tree: Tree }) {
  return (
    <>
      <header class="run">
        <h1>{visible(tree.strategy) || "trace"}</h1>
        <Text text={tree.prompt} />
        <dl class="facts inline">
          <dt>answer</dt>
          <dd>
            <bdi>{tree.answer === null ? "(none)" : visible(tree.answer)}</bdi>
          </dd>
          <dt>ended</dt>
          <dd>{tree.reason ?? "the trace ends here: the run was killed or goes on"}</dd>
          <dt>tokens</dt>
          <dd>{tree.totalTokens.toLocaleString("en")}</dd>
          <dt>seed</dt>
          <dd>{tree.seed}</dd>
        </dl>
      </header>
      <Viewer tree={tree} version={0} permalinks />
    </>
  );
}

const data = document.getElementById("trace-data")?.textContent ?? "";
const tree = Tree.of(parseEvents(data));
document.title = `${tree.strategy} - ramify trace`;
render(<Page tree={tree} />, document.getElementById("app")!);
