"""What hatch asks of the project when it builds a package of it."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Page(BuildHookInterface[Any]):
    """A package has the page in it, since whoever installs it may have no node. A link to the sources needs none."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatch gives both
        if version == "editable":
            return
        page = Path(self.root, "services/gateway/page/index.html")
        if not page.exists():
            self.app.abort("The page is not built, and belongs into the package: `make page` builds it.")
        web = Path(self.root, "web")  # which an image does not have where it is built
        for kind in ("*.html", "*.json", "*.ts", "src/**/*"):
            for source in web.glob(kind):
                if source.is_file() and source.stat().st_mtime > page.stat().st_mtime:
                    older = f"The page is older than {source.relative_to(self.root)}"
                    self.app.abort(f"{older}: `make page` builds it anew.")
