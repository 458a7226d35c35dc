"""Models: data, checked for size when they are posted."""

from sqlalchemy.orm import Session

from llc.models import Model as ModelSpec
from store.ids import new_id
from store.tables import Model


def create_model(session: Session, tenant_id: str, name: str, spec: ModelSpec) -> Model:
    """A model of this specification. Raises: InputError `model_too_large`."""
    spec.check_size()
    model = Model(
        id=new_id("mdl"),
        tenant_id=tenant_id,
        name=name,
        spec=spec.model_dump(mode="json"),
        num_parameters=spec.layout().num_parameters,
    )
    session.add(model)
    session.flush()
    return model
