-- The log becomes partitioned by index, so that what was archived can be removed
-- without rewriting what stays. This is the first of two steps: it holds a lock for a
-- moment, and has events written, from now on, in a way that the second one relies on.
--
-- A partition's unique constraint knows its own rows only. That an event is in the
-- log once, whatever its index, is kept by a table of its own; it also remembers the
-- events whose entries were removed. Whoever looks for an entry by its event begins
-- there, or every partition would be looked into.

SET LOCAL ROLE sallyport_owner;

CREATE TABLE audit.event_ids (
  event_id uuid   PRIMARY KEY,
  index    bigint NOT NULL CHECK (index >= 0)
);

-- Once for each batch, whoever inserts it.
CREATE FUNCTION audit.remember_ids() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
BEGIN
  INSERT INTO audit.event_ids (event_id, index) SELECT a.event_id, a.index FROM added AS a;
  RETURN NULL;
END
$$;
CREATE TRIGGER remember_ids AFTER INSERT ON audit.entries
  REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION audit.remember_ids();
ALTER TABLE audit.entries ENABLE ALWAYS TRIGGER remember_ids;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.event_ids
  FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER append_only_row BEFORE UPDATE OR DELETE ON audit.event_ids
  FOR EACH ROW EXECUTE FUNCTION audit.refuse();
ALTER TABLE audit.event_ids ENABLE ALWAYS TRIGGER append_only, ENABLE ALWAYS TRIGGER append_only_row;

REVOKE ALL ON FUNCTION audit.remember_ids() FROM PUBLIC;
GRANT SELECT ON audit.event_ids TO sallyport_app, sallyport_audit;

-- How far the entries that there are go, with room for what comes until the second
-- step is done. It is checked for new entries only; the second step looks at the others.
DO $$
DECLARE
  size bigint := coalesce((SELECT h.size FROM audit.head AS h), 0);
BEGIN
  EXECUTE format('ALTER TABLE audit.entries ADD CONSTRAINT in_first_partition CHECK (index < %s) NOT VALID',
    (size / 65536 + CASE size WHEN 0 THEN 1 ELSE 16 END) * 65536);
END
$$;

RESET ROLE;
