-- Requests that follow the grant of another one without a gap.
--
-- The terms of such a request say which one it extends; the row here is there to
-- find it from the other end. A request may be extended again when an extension
-- of it was denied, cancelled or expired: of those that count there is one, which
-- package approvals sees to under the lock of the earlier request.

SET LOCAL ROLE sallyport_owner;

CREATE TABLE extensions (
  request_id text PRIMARY KEY,
  extends    text NOT NULL,
  person_id  text NOT NULL,

  -- One's own grant only, whoever writes the row.
  FOREIGN KEY (request_id, person_id) REFERENCES requests (id, person_id),
  FOREIGN KEY (extends, person_id) REFERENCES requests (id, person_id),
  CHECK (request_id <> extends)
);
CREATE INDEX extensions_by_earlier ON extensions (extends);

GRANT SELECT, INSERT ON extensions TO sallyport_app;
GRANT SELECT ON extensions TO sallyport_audit;

CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON extensions FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
ALTER TABLE extensions ENABLE ALWAYS TRIGGER rows_stay;

RESET ROLE;
