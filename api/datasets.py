"""/v1/datasets: the samples that losses are measured on."""

from collections.abc import Sequence

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.config import JsonDict

from api.dependencies import Reader, Shared
from api.fields import Body, Name, Sha256, Timestamp
from api.once import Once
from api.paging import ID, After, Limit, Page, page, position
from api.problems import RESPONSES
from api.reads import ReadRoute, reads_a_file
from llc.data import ArrayInfo
from store.datasets import create_dataset
from store.owned import find, newest
from store.tables import Dataset

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], responses=RESPONSES, route_class=ReadRoute)

_EXAMPLE: JsonDict = {
    "name": "addition mod 53",
    "blob": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}


class NewDataset(Body):
    """A data set: a safetensors file with inputs 'x' and, if the model's loss asks for them, targets 'y', one row a
    sample.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})
    name: Name
    blob: Sha256


class DatasetOut(BaseModel):
    """A data set and what its arrays are."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    name: str
    blob: str
    num_samples: int
    arrays: dict[str, ArrayInfo]
    created_at: Timestamp


_LIST = TypeAdapter(list[DatasetOut])


def _show(rows: Sequence[Dataset]) -> list[DatasetOut]:
    return _LIST.validate_python(rows, from_attributes=True)


@router.post("", summary="Make a data set of an uploaded file", status_code=201)
@reads_a_file
def post_dataset(body: NewDataset, shared: Shared, once: Once) -> DatasetOut:
    return once(
        lambda session: DatasetOut.model_validate(
            create_dataset(session, shared.blobs, once.tenant_id, body.name, body.blob)
        )
    )


@router.get("", summary="List data sets, newest first")
def list_datasets(key: Reader, shared: Shared, limit: Limit = 50, after: After = None) -> Page[DatasetOut]:
    with shared.reading() as session:
        rows = newest(session, Dataset, key.tenant_id, position(after, ID), limit + 1)
        return page(rows, limit, lambda row: row.id, _show)


@router.get("/{dataset_id}", summary="Get a data set")
def get_dataset(dataset_id: str, key: Reader, shared: Shared) -> DatasetOut:
    with shared.reading() as session:
        return DatasetOut.model_validate(find(session, Dataset, key.tenant_id, dataset_id))
