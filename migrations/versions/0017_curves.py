"""Results carry what a curve shows of them, as text: of tens of thousands it is put together, not made anew."""

from collections.abc import Sequence

from alembic import op

revision: str = "0017"
down_revision: str | Sequence[str] | None = "0016"

FUNCTIONS = """
CREATE FUNCTION curve_values(quantities jsonb, verdict text, names text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT string_agg(
        ',' || to_json(key)::text || ':{"value":' || coalesce((value ->> 'value')::float8::text, 'null')
            || ',"std_error":' || coalesce((value ->> 'std_error')::float8::text, 'null')
            || ',"verdict":' || coalesce(value -> 'verdict', to_jsonb(verdict))::text || '}',
        '' ORDER BY key COLLATE "C"
    )
    FROM jsonb_each(quantities) WHERE names IS NULL OR key = ANY(names)
$$;
COMMENT ON FUNCTION curve_values IS
    'What a curve shows of a result''s quantities, or of those of these names: ,"llc":{"value":...,...},...';

CREATE FUNCTION curve_names(measure text, quantities jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ',' || jsonb_build_array(measure, jsonb_agg(key ORDER BY key COLLATE "C"))::text
    FROM jsonb_object_keys(quantities) key
$$;
COMMENT ON FUNCTION curve_names IS 'A measure with the sorted names of its quantities: ,["llc", ["llc", ...]]';
"""

COLUMNS = """
ALTER TABLE results
    ADD COLUMN curve_names text GENERATED ALWAYS AS (curve_names(measure, quantities)) STORED NOT NULL,
    ADD COLUMN curve_values text GENERATED ALWAYS AS (curve_values(quantities, verdict, NULL)) STORED
"""


def upgrade() -> None:
    """Apply. All results are written anew: half a minute a million."""
    op.execute(FUNCTIONS)
    op.execute(COLUMNS)


def downgrade() -> None:
    """Undo."""
    op.execute("ALTER TABLE results DROP COLUMN curve_names, DROP COLUMN curve_values")
    op.execute("DROP FUNCTION curve_names, curve_values")
