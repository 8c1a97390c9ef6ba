import { render } from "preact";
import "../style/base.css";
import "../style/viewer.css";
import "../style/page.css";
import { App } from "./App";

render(<App />, document.getElementById("app")!);
