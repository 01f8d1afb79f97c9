-- Doors that were opened before approval, and the reviews that follow.
--
-- An emergency is a request whose terms say so; its row here is there to find
-- it, and to see at a glance whom its review waits for. A review is a canonical
-- text, as a decision is, and closes the emergency once and for all: there is
-- one per emergency, and nothing of either can change or go.

SET LOCAL ROLE sallyport_owner;

CREATE TABLE emergencies (
  request_id    text PRIMARY KEY,
  number        bigint GENERATED ALWAYS AS IDENTITY, -- a person's later one has a higher one, whatever the clocks say
  person_id     text NOT NULL,
  drill         boolean NOT NULL,
  review_groups text[] NOT NULL, -- whose members may review it
  review_by     timestamptz NOT NULL,

  UNIQUE (request_id, person_id),
  FOREIGN KEY (request_id, person_id) REFERENCES requests (id, person_id),
  CHECK (cardinality(review_groups) > 0) -- an empty list means nobody, and then nobody may open the door
);
CREATE INDEX emergencies_by_person ON emergencies (person_id, number DESC);
CREATE INDEX emergencies_by_reviewers ON emergencies USING gin (review_groups);

CREATE TABLE reviews (
  id             text PRIMARY KEY CHECK (id ~ '^rev-[0-9a-z]{12}$'),
  request_id     text NOT NULL UNIQUE, -- one review closes
  requester_id   text NOT NULL,
  reviewer_id    text NOT NULL REFERENCES people,
  statement      bytea NOT NULL,
  statement_hash text NOT NULL CHECK (statement_hash = encode(sha256(statement), 'hex')),
  reviewed_at    timestamptz NOT NULL,

  FOREIGN KEY (request_id, requester_id) REFERENCES emergencies (request_id, person_id),
  CHECK (reviewer_id <> requester_id) -- P5: never one's own emergency
);
CREATE INDEX reviews_by_reviewer ON reviews (reviewer_id);

-- A row for each review.overdue event, so that there is one of each.
CREATE TABLE overdue_reviews (
  request_id text PRIMARY KEY REFERENCES emergencies,
  noted_at   timestamptz NOT NULL
);

GRANT SELECT, INSERT ON emergencies, reviews, overdue_reviews TO sallyport_app;
GRANT SELECT ON emergencies, reviews, overdue_reviews TO sallyport_audit;

CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON emergencies FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON reviews FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON overdue_reviews FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
-- Also where session_replication_role would skip triggers.
ALTER TABLE emergencies ENABLE ALWAYS TRIGGER rows_stay;
ALTER TABLE reviews ENABLE ALWAYS TRIGGER rows_stay;
ALTER TABLE overdue_reviews ENABLE ALWAYS TRIGGER rows_stay;

RESET ROLE;
