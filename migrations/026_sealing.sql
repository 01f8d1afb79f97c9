-- Hosts that a deployment opens, and what seals them.
--
-- A host is open from when its batch opens until it is sealed, and an agent gets a
-- certificate only for a host that is open: the database sees to both. Sealing adds one
-- entry to the list of revocations, which ends all that the deployment was issued for
-- the host until then, and its sessions. As with grants, the transaction that seals
-- makes the entry, by a trigger that runs when it commits.
--
-- Sessions that an agent's certificate opened name its deployment, as others name their
-- request.

SET LOCAL ROLE sallyport_owner;

ALTER TABLE deployment_hosts
  ADD COLUMN open_until timestamptz, -- when it closes at the latest; null: it is not open
  ADD COLUMN sealings   integer NOT NULL DEFAULT 0 CHECK (sealings >= 0),
  ADD CHECK (open_until IS NULL OR released_at IS NULL);
CREATE INDEX deployment_hosts_open ON deployment_hosts (host_id) WHERE open_until IS NOT NULL;
GRANT UPDATE (open_until, sealings) ON deployment_hosts TO sallyport_app;

ALTER TABLE revocations
  ADD COLUMN deployment_id text REFERENCES deployments,
  ADD COLUMN host_id       text REFERENCES hosts,
  ALTER COLUMN request_id DROP NOT NULL,
  DROP CONSTRAINT revocations_what_check,
  ADD CHECK (what IN ('serial', 'ended', 'extended', 'sealed')),
  ADD CHECK ((what = 'sealed') = (request_id IS NULL)),
  ADD CHECK ((what = 'sealed') = (deployment_id IS NOT NULL) AND (what = 'sealed') = (host_id IS NOT NULL));
CREATE INDEX revocations_sealed ON revocations (host_id, number) WHERE what = 'sealed';

ALTER TABLE host_sessions
  ADD COLUMN deployment_id text REFERENCES deployments,
  ADD CHECK (deployment_id IS NULL OR request_id IS NULL);
CREATE INDEX host_sessions_by_deployment ON host_sessions (deployment_id, reported_at) WHERE deployment_id IS NOT NULL;

-- What a host found, it found after it had that list: so it is known what came after a
-- sealing, whatever its clock says.
ALTER TABLE host_postures
  ADD COLUMN list  bigint NOT NULL DEFAULT 0 CHECK (list >= 0),
  ADD COLUMN ports integer[]; -- on which something listens, beside sshd; null: not known
GRANT UPDATE (list, ports) ON host_postures TO sallyport_app;

CREATE FUNCTION agent_enters_open_hosts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM deployment_hosts AS h
                 WHERE h.deployment_id = NEW.deployment_id AND h.host_id = NEW.host_id AND NEW.valid_before <= h.open_until) THEN
    RAISE EXCEPTION 'host % is not open for deployment %', NEW.host_id, NEW.deployment_id;
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER agent_enters_open_hosts BEFORE INSERT ON deployment_certificates FOR EACH ROW EXECUTE FUNCTION agent_enters_open_hosts();

-- add_sealing lists that a deployment's certificates for a host, up to then, are void.
-- When the last of them and the last session are over in any case, hosts can forget it.
CREATE FUNCTION add_sealing(deployment text, host text, sealed timestamptz, over timestamptz)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  n bigint;
BEGIN
  UPDATE public.revocation_head AS h SET number = h.number + 1 WHERE h.one_row RETURNING h.number INTO n;
  IF n IS NULL THEN
    RAISE EXCEPTION 'the list of revocations has no head';
  END IF;
  INSERT INTO public.revocations (number, what, deployment_id, host_id, at, reason, until)
  VALUES (n, 'sealed', deployment, host, sealed, '', greatest(sealed, over) + interval '1 day');
END
$$;
REVOKE EXECUTE ON FUNCTION add_sealing FROM PUBLIC;

-- Sealed at: when the newest certificate was issued, or now, whichever is later, so that
-- no clock lets one through.
CREATE FUNCTION deployment_host_sealed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM public.add_sealing(NEW.deployment_id, NEW.host_id,
    (SELECT greatest(max(c.issued_at), clock_timestamp()) FROM public.deployment_certificates AS c
     WHERE c.deployment_id = NEW.deployment_id AND c.host_id = NEW.host_id), OLD.open_until);
  RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER deployment_host_sealed AFTER UPDATE ON deployment_hosts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (OLD.sealings <> NEW.sealings OR OLD.open_until IS NOT NULL AND NEW.open_until IS NULL)
  EXECUTE FUNCTION deployment_host_sealed();

-- A host that is no longer ours, or that an operator keeps shut: what could still open
-- it opens nothing, an agent's certificate neither. The deployment's row is left alone:
-- who seals it may hold that, and wait for the list's number.
CREATE OR REPLACE FUNCTION host_closed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM public.revoke_certificate(c.serial, closed.at)
  FROM public.certificates AS c, (SELECT coalesce(NEW.removed_at, NEW.quarantined_at) AS at) AS closed
  WHERE c.host_id = NEW.id AND c.valid_before > closed.at ORDER BY c.serial;
  PERFORM public.add_sealing(h.deployment_id, h.host_id,
    greatest((SELECT max(c.issued_at) FROM public.deployment_certificates AS c
              WHERE c.deployment_id = h.deployment_id AND c.host_id = h.host_id), clock_timestamp()), h.open_until)
  FROM public.deployment_hosts AS h WHERE h.host_id = NEW.id AND h.open_until IS NOT NULL ORDER BY h.deployment_id;
  RETURN NULL;
END
$$;

ALTER TABLE deployment_certificates ENABLE ALWAYS TRIGGER agent_enters_open_hosts;
ALTER TABLE deployment_hosts ENABLE ALWAYS TRIGGER deployment_host_sealed;

RESET ROLE;
