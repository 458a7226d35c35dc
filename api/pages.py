"""The dashboard at /: plain files, with Plotly from its wheel, so that it works without the internet."""

import importlib.util
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.staticfiles import StaticFiles

from store.errors import NotFoundError

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parent / "dashboard"
HEADERS = {
    # Plotly sets style attributes; scripts come from here alone.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
ASK_AGAIN = "no-cache"
A_DAY = "public, max-age=86400"


@cache
def assets() -> dict[str, tuple[Path, str]]:
    """Every file under /assets and how long a browser may keep it; nothing else is served."""
    found = {path.name: (path, ASK_AGAIN) for path in FOLDER.iterdir() if path.suffix in (".js", ".css", ".svg")}
    plotly = importlib.util.find_spec("plotly")
    for folder in (plotly and plotly.submodule_search_locations) or ():
        found["plotly.min.js"] = (Path(folder) / "package_data" / "plotly.min.js", A_DAY)
    return found


@router.get("/")
def index(request: Request) -> Response:
    """The page."""
    return _file(request, FOLDER / "index.html", ASK_AGAIN)


@router.get("/assets/{name}")
def asset(request: Request, name: str) -> Response:
    """A file of the page."""
    if name not in assets():
        raise NotFoundError("asset", name)
    return _file(request, *assets()[name])


def _file(request: Request, path: Path, cache_control: str) -> Response:
    """A file with its ETag; 304 for a browser that has it."""
    response = StaticFiles(directory=path.parent).file_response(path, path.stat(), request.scope)
    response.headers.update(HEADERS | {"Cache-Control": cache_control})
    return response
