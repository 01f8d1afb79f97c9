-- Evidence packs: what auditors asked to take away, and how far it has come.
--
-- A pack is made in the background by whichever replica is free, which says so by
-- its name and a time that it keeps moving; when that stands still, another one
-- begins anew. What the pack is made of is fixed when that begins: the signed heads
-- of the log between which it lies. So any replica makes the same one, also again
-- for a download where the file is not.
--
-- Nothing in a pack comes from this table but its parameters.

SET LOCAL ROLE sallyport_owner;

CREATE TABLE evidence_packs (
  id          text        PRIMARY KEY CHECK (id ~ '^pack-[0-9a-z]{12}$'),
  person_id   text        NOT NULL REFERENCES people,
  person_name text        NOT NULL, -- as it was then, and stands in the pack
  created_at  timestamptz NOT NULL,
  period_from timestamptz NOT NULL,
  period_to   timestamptz NOT NULL CHECK (period_from < period_to),
  zone        text        NOT NULL CHECK (zone <> ''),
  controls    text[]      NOT NULL,
  seed        text        NOT NULL, -- the auditor's; empty: made from the log's root
  event_id    uuid        NOT NULL, -- pack.requested

  state       text        NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'ready', 'failed', 'expired')),
  worker      text        NOT NULL DEFAULT '',
  beat_at     timestamptz,
  attempts    int         NOT NULL DEFAULT 0,
  done        bigint      NOT NULL DEFAULT 0,
  total       bigint      NOT NULL DEFAULT 0,

  -- Once it has begun.
  first       bigint,      -- index of the oldest entry that there was
  checkpoint  text,        -- signed head at the end, with cosignatures
  start       text,        -- signed head at the period's start

  -- Once it is ready, or has failed.
  ended_at    timestamptz,
  manifest    text        NOT NULL DEFAULT '',
  bytes       bigint      NOT NULL DEFAULT 0,
  exceptions  bigint      NOT NULL DEFAULT 0,
  missing     bigint      NOT NULL DEFAULT 0,
  problem     text        NOT NULL DEFAULT ''
);
CREATE INDEX evidence_packs_by_time ON evidence_packs (created_at, id);
CREATE INDEX evidence_packs_to_make ON evidence_packs (created_at) WHERE state IN ('waiting', 'running');

GRANT SELECT, INSERT ON evidence_packs TO sallyport_app;
GRANT UPDATE (state, worker, beat_at, attempts, done, total, first, checkpoint, start, ended_at, manifest, bytes, exceptions,
  missing, problem) ON evidence_packs TO sallyport_app;
GRANT SELECT ON evidence_packs TO sallyport_audit;

RESET ROLE;
