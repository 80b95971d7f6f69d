import { render } from "preact";
import { start } from "./app";
import "./styles/index.css";
import { watchThreads } from "./threads";
import { App } from "./views/App";
import { copyCodeWhenAsked } from "./views/copying";
import { pressOnce } from "./views/keyboard";

copyCodeWhenAsked();
pressOnce();
watchThreads();
void start();
render(<App />, document.getElementById("room") as HTMLElement);
