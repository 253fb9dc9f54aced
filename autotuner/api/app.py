"""The application: routes, problems, limits and the page, over one service."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from autotuner import __version__
from autotuner.api import problems, security
from autotuner.api.metrics import Counted
from autotuner.api.problems import MEDIA_TYPE, Problem
from autotuner.api.service import Service

STATIC = Path(__file__).with_name("static")

ROUTES = ("studies", "trials", "streams", "presets", "engines", "cluster")
"""Modules under `routes`, all below /v1."""

DESCRIPTION = """Studies of which launch flags serve a large language model best.

A study is sent, started, followed, and read; each runs as a Ray job of its own. Errors are
problem details (RFC 9457). Where tokens are on, send `Authorization: Bearer TOKEN`.
"""


def application(service: Service | None = None) -> FastAPI:
    """The application over a service; without one it can only describe itself."""
    app = FastAPI(
        title="autotuner",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # its scripts come from elsewhere; the page and any viewer do
        redoc_url=None,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        # Every route may be refused; a 422 of our own shape is said in its place.
        responses=problems.answers(400, 401, 403, 413, 415, 422, 429, 503),
    )
    app.state.service = service
    problems.install(app)
    for name in ROUTES:
        app.include_router(import_module(f"autotuner.api.routes.{name}").router, prefix="/v1")
    app.include_router(import_module("autotuner.api.routes.system").router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    security.install(app)
    app.add_middleware(Counted)
    return app


def document() -> dict[str, Any]:
    """The OpenAPI document; starts nothing."""
    return application().openapi()


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            license_info=app.license_info,
            routes=app.routes,
        )
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs", {}))
        schemas["Problem"] = problem
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"token": []}, {}]
        for path in made["paths"].values():
            for operation in path.values():
                # FastAPI's own shape of a 422 is not ours.
                operation["responses"]["422"] = {
                    "description": "What was sent cannot be used",
                    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
        app.openapi_schema = made
    return app.openapi_schema
