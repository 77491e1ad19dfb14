"""The TensorBoard plugin: HTTP routes to curves and pages."""

import gzip
import json
from argparse import Namespace
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

from tensorboard import errors, plugin_util
from tensorboard.backend.http_util import Respond
from tensorboard.plugins.base_plugin import FrontendMetadata, TBContext, TBLoader, TBPlugin
from werkzeug.wrappers import Request, Response

from bptt.tensorboard_tab.series import CurveReader
from bptt.tensorboard_tab.summary import LOOKS_KEPT, PLUGIN
from bptt.tensorboard_tab.thinning import MAX_POINTS, MIN_POINTS

ASSETS = Path(__file__).parent / "assets"
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css"}
DAY = 24 * 60 * 60


class GradientFlowTab(TBPlugin):  # type: ignore[misc]  # TensorBoard has no types
    """Serves the curves that the callbacks of this project write, and the pages that show them.

    Responses are files of this package, plotly's script, and JSON of numbers and names in which `<`, `>` and `&` are
    escaped.
    """

    plugin_name = PLUGIN

    def __init__(self, context: TBContext):
        self.provider = context.data_provider

    def is_active(self) -> bool:
        return False  # TensorBoard shows the tab as soon as a run has data for it

    def frontend_metadata(self) -> FrontendMetadata:
        return FrontendMetadata(es_module_path="/index.js", tab_name="Gradient flow")

    def get_plugin_apps(self) -> dict[str, Any]:
        pages = {f"/{path.name}": asset(path) for path in sorted(ASSETS.iterdir()) if path.suffix in MEDIA_TYPES}
        data = {"/runs": self.runs, "/look": self.look, "/looks": self.looks}
        return {**pages, "/plotly.js": plotly, **{route: json_route(answer) for route, answer in data.items()}}

    def runs(self, request: Request) -> dict[str, Any]:
        return self.reader(request).runs()

    def look(self, request: Request) -> dict[str, Any]:
        """Curves of several runs at the newest step of each: ?tag=…&run=…&run=…[&points=…]"""
        return self.reader(request).newest(required(request, "tag"), runs_of(request), points=points_of(request))

    def looks(self, request: Request) -> dict[str, Any]:
        """Curves of one run at every step: ?tag=…&run=…[&points=…]"""
        tag, run = required(request, "tag"), required(request, "run")
        return self.reader(request).over_steps(tag, run, points=points_of(request))

    def reader(self, request: Request) -> CurveReader:
        environment = request.environ
        return CurveReader(self.provider, plugin_util.context(environment), plugin_util.experiment_id(environment))


class GradientFlowLoader(TBLoader):  # type: ignore[misc]  # TensorBoard has no types
    """Loads the tab, and raises the number of looks that TensorBoard keeps of every curve."""

    def fix_flags(self, flags: Namespace) -> None:
        flags.samples_per_plugin.setdefault(PLUGIN, LOOKS_KEPT)

    def load(self, context: TBContext) -> GradientFlowTab:
        Thread(target=compressed_plotly, daemon=True).start()  # before a browser asks for it
        return GradientFlowTab(context)


def json_route(answer: Callable[[Request], dict[str, Any]]) -> Any:
    @Request.application
    def serve(request: Request) -> Response:
        if request.method != "GET":
            return Respond(request, "only GET is answered", "text/plain", code=405)
        return Respond(request, escaped(answer(request)), "application/json")

    return serve


def escaped(content: dict[str, Any]) -> str:
    """JSON that cannot be parsed as HTML, wherever it is inserted into a page."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def asset(path: Path) -> Any:
    @Request.application
    def serve(request: Request) -> Response:
        return Respond(request, path.read_bytes(), MEDIA_TYPES[path.suffix])

    return serve


@Request.application
def plotly(request: Request) -> Response:
    """plotly's script from its Python package. Browsers may cache it for a day."""
    return Respond(request, compressed_plotly(), "text/javascript", content_encoding="gzip", expires=DAY)


@cache
def compressed_plotly() -> bytes:
    spec = find_spec("plotly")  # found, not imported
    assert spec is not None
    assert spec.origin is not None
    script = Path(spec.origin).parent / "package_data" / "plotly.min.js"
    return gzip.compress(script.read_bytes(), compresslevel=1)


def required(request: Request, name: str) -> str:
    value = request.args.get(name)
    if not value:
        raise errors.InvalidArgumentError(f"{name} must be given, got an address without it")
    return value


def runs_of(request: Request) -> list[str]:
    names = request.args.getlist("run")
    if not names:
        raise errors.InvalidArgumentError("run must be given, got an address without it")
    return names


def points_of(request: Request) -> int:
    """The largest number of points of a curve."""
    text = request.args.get("points", str(MAX_POINTS))
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) < MIN_POINTS:
        raise errors.InvalidArgumentError(f"points must be an integer >= {MIN_POINTS}, got {text!r}")
    return int(text)
