"""Data sets: described once, when they are posted."""

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from llc.data import ArrayInfo, describe_file, num_samples
from llc.models import MODEL_SPEC
from store import owners
from store.blobs import BlobStore
from store.ids import new_id
from store.tables import Dataset, Model

_ARRAYS = TypeAdapter(dict[str, ArrayInfo])


def create_dataset(session: Session, blobs: BlobStore, tenant_id: str, name: str, sha256: str) -> Dataset:
    """A data set of the arrays in a blob. Raises: NotFoundError; InputError if the blob is no data set."""
    owners.require_owned(session, tenant_id, sha256)
    session.commit()  # the file may be large: no transaction stays open while it is read
    arrays = describe_file(blobs.path(sha256))
    dataset = Dataset(
        id=new_id("dst"),
        tenant_id=tenant_id,
        name=name,
        blob=sha256,
        arrays={array: info.model_dump(mode="json") for array, info in arrays.items()},
        num_samples=num_samples(arrays),
    )
    session.add(dataset)
    session.flush()
    return dataset


def check_fits(model: Model, dataset: Dataset) -> None:
    """Refuse a data set that the model can't be evaluated on. Raises: InputError."""
    MODEL_SPEC.validate_python(model.spec).check_data(_ARRAYS.validate_python(dataset.arrays))
