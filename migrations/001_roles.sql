-- Who may do what in this database. Roles belong to the whole cluster, so they
-- may exist already, or be made at this moment by a migration of another
-- database: both are fine.
--
--   sallyport_owner  owns every table; nobody logs in as it.
--   sallyport_app    the broker. Log in as a member of it.
--   sallyport_audit  an auditor with SQL: reads everything, changes nothing.

DO $$
DECLARE
  role_name text;
BEGIN
  FOREACH role_name IN ARRAY ARRAY['sallyport_owner', 'sallyport_app', 'sallyport_audit'] LOOP
    BEGIN
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
        EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
      END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
  END LOOP;

  -- Whoever migrates must be able to act as the owner; a superuser already can.
  IF NOT pg_has_role(current_user, 'sallyport_owner', 'MEMBER') THEN
    EXECUTE format('GRANT sallyport_owner TO %I', current_user);
  END IF;
END
$$;

-- Every later migration begins with SET LOCAL ROLE sallyport_owner and ends with
-- RESET ROLE, so that no table belongs to the person who happened to migrate.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO sallyport_owner;
GRANT USAGE ON SCHEMA public TO sallyport_app, sallyport_audit;

-- The job queue brings its own migrations (package migrations runs them); it
-- lives in a schema of its own.
CREATE SCHEMA IF NOT EXISTS jobs;

-- There is no way down: a log that a migration could drop would not be append-only.
