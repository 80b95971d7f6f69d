"""A page that was built, of a few small files."""

from pathlib import Path

INDEX = '<!doctype html><title>M3</title><script type="module" src="/assets/index-1a2b.js"></script>'
SCRIPT = "console.log('你好');\n" * 100


def built_page(folder: Path) -> Path:
    """Its folder, inside this one, beside a file that is none of its own."""
    page = folder / "page"
    (page / "assets" / "more").mkdir(parents=True)
    (folder / "secret.js").write_text("a secret")
    (page / "index.html").write_text(INDEX)
    (page / "assets" / "index-1a2b.js").write_text(SCRIPT)
    (page / "assets" / "more" / "icon-3c4d.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (page / "assets" / "font-5e6f.woff2").write_bytes(b"wOF2" * 100)
    (page / "assets" / "notes.exe").write_text("a secret")
    return page
