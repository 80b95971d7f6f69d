/** What somebody said, as Markdown that can do nothing: no script, no HTML of its own, nothing that is fetched.
 *
 * HTML in it is shown as it was written. A picture becomes a link, so that nobody is told that the message is read until
 * the reader wants to see it. What marked makes goes through DOMPurify, and only what that returns is trusted by the page.
 */
import DOMPurify from "dompurify";
import { Marked, type Tokens } from "marked";
import { words } from "./words";

const ADDRESS = /^(https?:|mailto:)/i;
const TAGS = [
  ..."p br hr strong em del code pre blockquote ul ol li h3 h4 h5 h6 a table thead tbody tr th td".split(" "),
  ..."div span button".split(" "),
];
/** Those that are no addresses; DOMPurify holds all others to what an address may be. */
const PLAIN_ATTRIBUTES = ["class", "target", "rel", "type", "align", "start"];

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

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }: Tokens.HTML | Tokens.Tag) => escaped(text),
    link({ href, tokens }: Tokens.Link) {
      return link(href, this.parser.parseInline(tokens));
    },
    image({ href, text }: Tokens.Image) {
      const shown = `${words.value.picture}${text ? `: ${text}` : ""}`;
      const host = hostOf(href);
      return link(href, `${escaped(shown)}${host ? ` <span>${escaped(host)}</span>` : ""}`, ' class="picture"');
    },
    heading({ tokens, depth }: Tokens.Heading) {
      // below the page's own headings
      const level = Math.min(6, depth + 2);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    checkbox: ({ checked }: Tokens.Checkbox) => `${checked ? "☑" : "☐"} `,
    code({ text, lang }: Tokens.Code) {
      const name = (lang ?? "").split(/\s/, 1)[0] ?? "";
      const head = `<div><span>${escaped(name)}</span><button type="button" class="copy">${escaped(words.value.copyCode)}</button></div>`;
      return `<div class="code">${head}<pre><code>${escaped(text)}</code></pre></div>`;
    },
  },
});

const SANITISED = {
  ALLOWED_TAGS: TAGS,
  ALLOWED_ATTR: ["href", ...PLAIN_ATTRIBUTES],
  ADD_URI_SAFE_ATTR: PLAIN_ATTRIBUTES,
  ALLOWED_URI_REGEXP: ADDRESS,
};

/** HTML that may be set as it is; where the browser has trusted types it is one. */
export function rendered(content: string): string {
  const html = marked.parse(content, { async: false });
  const trusted = "trustedTypes" in globalThis;
  return DOMPurify.sanitize(html, { ...SANITISED, RETURN_TRUSTED_TYPE: trusted }) as unknown as string;
}
