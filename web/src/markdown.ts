/** What somebody said, as Markdown that can do nothing: no script, no HTML of its own, nothing that is fetched.
 *
 * HTML in it is shown as it was written. A picture becomes a link, so that nobody is told that the message is read until
 * the reader wants to see it. What marked makes goes through DOMPurify, and only what that returns is trusted by the page.
 * Where marked would take long, or make more than anybody reads, the text is shown as it was written.
 */
import DOMPurify from "dompurify";
import { Marked, Renderer, Tokenizer, type Tokens } from "marked";
import { whole } from "./cutting";
import { words } from "./words";

const ADDRESS = /^(https?:|mailto:)/i;
const TAGS = [
  ..."p br hr strong em del code pre blockquote ul ol li h3 h4 h5 h6 a table thead tbody tr th td".split(" "),
  ..."div span button".split(" "),
];
/** Those that are no addresses; DOMPurify holds all others to what an address may be. */
const PLAIN_ATTRIBUTES = ["class", "target", "rel", "type", "align", "start", "tabindex"];

const HAN = /\p{Script=Han}/u;

const escaped = (text: string): string => text.replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`);

/** A link is only one where it leads to a page or to somebody's mail. */
function link(href: string, text: string, kind = ""): string {
  if (!ADDRESS.test(href.trim())) return text;
  return `<a href="${escaped(href.trim())}"${kind} target="_blank" rel="noopener noreferrer nofollow">${text}</a>`;
}

function hostOf(href: string): string {
  try {
    return new URL(href).host;
  } catch {
    return "";
  }
}

/** What may be looked at of one text, in characters: some milliseconds for each million. 64 KiB of prose take a third. */
const LOOKS = 4_000_000;
/** What a paragraph, a word in bold or a cell takes beside that, in characters that could be looked at meanwhile. */
const PIECE = 400;
/** Lists and quotations within each other. */
const DEPTH = 16;
/** Spaces in a row, each of which is looked at from each. */
const SPACES = 500;
/** Characters of an address, whose end is looked for from its end. */
const LONGEST_ADDRESS = 2_048;
/** Characters of HTML. A reply of 64 KiB makes less than half of it. */
const LONGEST_HTML = 200_000;

class TooMuch extends Error {}

let looksLeft = 0;
let depth = 0;

function spend(looks: number): false {
  looksLeft -= PIECE + looks;
  if (looksLeft < 0) throw new TooMuch();
  return false;
}

function within<T>(work: () => T): T {
  if (depth >= DEPTH) throw new TooMuch();
  depth += 1;
  try {
    return work();
  } finally {
    depth -= 1;
  }
}

const wordAt = (rest: string): number => {
  const end = rest.search(/\s/);
  return end < 0 ? rest.length : end;
};

/** The line under the head of a table. */
const DELIMITERS = /^[^\n]*\n[ \t]*[|:-][|: \t-]*(?:\n|$)/;

/** Each is asked for a piece at the beginning of what is left of a text, and with false leaves that to marked. These two
 * are the first that are asked, for each block and for each piece of a line. */
const tokenizer = {
  space: () => spend(0),
  // what emphasises looks for its other end in all that is left, at each of the others there; anything else in its word
  escape: (rest: string) => spend(/^[*_~]/.test(rest) ? 4 * rest.length : wordAt(rest)),
  blockquote(this: Tokenizer, rest: string) {
    return within(() => Tokenizer.prototype.blockquote.call(this, rest));
  },
  list(this: Tokenizer, rest: string) {
    return within(() => Tokenizer.prototype.list.call(this, rest));
  },
  // its rows are filled up to the width of its head
  table(rest: string) {
    if (!DELIMITERS.test(rest)) return false;
    const [head = ""] = rest.split("\n", 1);
    const [rows = ""] = rest.split(/\n[ \t]*\n/, 1);
    return spend((head.split("|").length - 1) * rows.split("\n").length * PIECE);
  },
  url: (rest: string) => (wordAt(rest) > LONGEST_ADDRESS ? undefined : false),
};

const marked = new Marked({
  gfm: true,
  breaks: true,
  tokenizer,
  renderer: {
    html: ({ text }: Tokens.HTML | Tokens.Tag) => escaped(text),
    link({ href, tokens }: Tokens.Link) {
      return link(href, this.parser.parseInline(tokens));
    },
    image({ href, text }: Tokens.Image) {
      const shown = text ? words.value.told(words.value.picture, text) : words.value.picture;
      const host = hostOf(href);
      return link(href, `${escaped(shown)}${host ? ` <span>${escaped(host)}</span>` : ""}`, ' class="picture"');
    },
    heading({ tokens, depth }: Tokens.Heading) {
      // below the page's own headings
      const level = Math.min(6, depth + 2);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    em({ text, tokens }: Tokens.Em) {
      // its beginning tells, and within each other they are not all looked through
      const isHan = HAN.test(text.slice(0, PIECE));
      return `<em${isHan ? ' class="han"' : ""}>${this.parser.parseInline(tokens)}</em>`;
    },
    listitem({ task, tokens }: Tokens.ListItem) {
      return task && `<li class="task">${this.parser.parse(tokens)}</li>`;
    },
    table(table: Tokens.Table) {
      return `<div class="wide" tabindex="0">${Renderer.prototype.table.call(this, table)}</div>`;
    },
    checkbox: ({ checked }: Tokens.Checkbox) => `${checked ? "☑" : "☐"} `,
    code({ text, lang }: Tokens.Code) {
      const name = (lang ?? "").split(/\s/, 1)[0] ?? "";
      const head = `<div><span>${escaped(name)}</span><button type="button" class="copy">${escaped(words.value.copyCode)}</button></div>`;
      return `<div class="code">${head}<pre tabindex="0"><code>${escaped(text)}</code></pre></div>`;
    },
  },
});

const SANITISED = {
  ALLOWED_TAGS: TAGS,
  ALLOWED_ATTR: ["href", ...PLAIN_ATTRIBUTES],
  ADD_URI_SAFE_ATTR: PLAIN_ATTRIBUTES,
  ALLOWED_URI_REGEXP: ADDRESS,
};

/** As it was written, for what is no Markdown. */
const asWritten = (content: string): string => `<div class="plain">${escaped(content)}</div>`;

function html(content: string): string {
  if (content.includes(" ".repeat(SPACES))) return asWritten(content);
  looksLeft = LOOKS;
  depth = 0;
  try {
    const made = marked.parse(content, { async: false });
    if (made.length <= LONGEST_HTML) return made;
  } catch {
    // too much, or marked fails at it, which is no reason to show nothing
  }
  return asWritten(content);
}

/** HTML that may be set as it is; where the browser has trusted types it is one. */
export function rendered(content: string): string {
  const trusted = "trustedTypes" in globalThis;
  return DOMPurify.sanitize(html(content), { ...SANITISED, RETURN_TRUSTED_TYPE: trusted }) as unknown as string;
}

/** Characters at the beginning of a text that are looked at for a line of it. */
const BEGINNING = 1_000;
/** What does not begin a line. */
const INLINE = "a, code, em, strong, del, span";

/** What one reads of its beginning, without what marks it up, in one line. */
export function inOneLine(content: string): string {
  const beginning = content.slice(0, whole(content, BEGINNING));
  const shown = DOMPurify.sanitize(html(beginning), { ...SANITISED, RETURN_DOM_FRAGMENT: true });
  for (const head of shown.querySelectorAll(".code > div")) head.remove();
  for (const block of shown.querySelectorAll(`:not(${INLINE})`)) block.before(" ");
  return oneLine(shown.textContent ?? "") || oneLine(beginning);
}

const oneLine = (text: string): string => text.trim().replace(/\s+/g, " ");
