"""/v1/models: what is trained, described by data."""

from collections.abc import Sequence

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import Reader, Shared
from api.fields import Body, Name, Timestamp
from api.once import Once
from api.paging import ID, After, Limit, Page, page, position
from api.problems import RESPONSES
from api.reads import ReadRoute
from llc.layout import Layout
from llc.models import MODEL_SPEC, ModelSpec
from store.models import create_model
from store.owned import find, newest
from store.tables import Model

router = APIRouter(prefix="/v1", tags=["models"], responses=RESPONSES, route_class=ReadRoute)

_SPEC = {
    "kind": "builtin",
    "family": "mlp",
    "widths": [128, 128, 53],
    "activation": "relu",
    "embeddings": {"vocabulary_size": 53, "num_positions": 2},
}


class NewModel(Body):
    """A model to keep."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "mlp 128", "spec": _SPEC}]})
    name: Name
    spec: ModelSpec


class ModelToCheck(Body):
    """A model to look at, without keeping it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"spec": _SPEC}]})
    spec: ModelSpec


class Parameter(BaseModel):
    """One parameter tensor."""

    name: str
    shape: tuple[int, ...]


class ModelShape(BaseModel):
    """The parameters that a checkpoint of a model has."""

    num_parameters: int
    layout: list[Parameter] = Field(description="Names and shapes, in the order of the flat vector.")


class ModelOut(ModelShape):
    """A model and the parameters that its checkpoints have."""

    id: str
    name: str
    spec: ModelSpec
    created_at: Timestamp


def _parameters(layout: Layout) -> list[Parameter]:
    return [Parameter(name=name, shape=shape) for name, shape in layout.shapes.items()]


def _show(model: Model) -> ModelOut:
    spec = MODEL_SPEC.validate_python(model.spec)
    return ModelOut(
        id=model.id,
        name=model.name,
        spec=spec,
        num_parameters=model.num_parameters,
        layout=_parameters(spec.layout()),
        created_at=model.created_at,
    )


def _show_all(rows: Sequence[Model]) -> list[ModelOut]:
    return [_show(row) for row in rows]


@router.post("/models", summary="Describe a model", status_code=201)
def post_model(body: NewModel, once: Once) -> ModelOut:
    return once(lambda session: _show(create_model(session, once.tenant_id, body.name, body.spec)))


@router.post("/models:validate", summary="See what parameters a model would have")
def validate_model(body: ModelToCheck, _key: Reader) -> ModelShape:
    body.spec.check_size()
    layout = body.spec.layout()
    return ModelShape(num_parameters=layout.num_parameters, layout=_parameters(layout))


@router.get("/models", summary="List models, newest first")
def list_models(key: Reader, shared: Shared, limit: Limit = 50, after: After = None) -> Page[ModelOut]:
    with shared.reading() as session:
        rows = newest(session, Model, key.tenant_id, position(after, ID), limit + 1)
        return page(rows, limit, lambda row: row.id, _show_all)


@router.get("/models/{model_id}", summary="Get a model")
def get_model(model_id: str, key: Reader, shared: Shared) -> ModelOut:
    with shared.reading() as session:
        return _show(find(session, Model, key.tenant_id, model_id))
