import { signal } from "@preact/signals";
import DOMPurify from "dompurify";
import { marked } from "marked";
import { render } from "preact";
import { VList } from "virtua";

const n = signal(0);
render(
  <div>
    <button onClick={() => n.value++}>{n}</button>
    <VList style={{ height: "300px" }}>
      {Array.from({ length: 20000 }, (_, i) => (
        <div dangerouslySetInnerHTML={{ __html: DOMPurify.sanitize(marked.parse(`**row** ${i}`, { async: false })) }} />
      ))}
    </VList>
  </div>,
  document.getElementById("room")!,
);
