// Package pgtest gives each test a PostgreSQL database of its own: one cluster
// for the test binary, one migrated template, and a clone of it for each test
// in about ten milliseconds, so that tests run in parallel.
package pgtest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"sallyport/internal/postgres"
	"sallyport/migrations"
)

// DB is one test's database.
type DB struct {
	// Pool is connected as the broker is: a member of sallyport_app.
	Pool *pgxpool.Pool
	// URL is what Pool uses.
	URL string
	// AdminURL connects as the cluster's superuser, for tests that play the
	// database's administrator.
	AdminURL string
	// Name of the database.
	Name string
}

// AppUser is the login role that tests' brokers connect as.
const AppUser = "sallyport"

const template = "sallyport_template"

var (
	once    sync.Once
	cluster *postgres.Cluster
	onceErr error
	counter atomic.Int64
)

// New clones the migrated template for the test and drops the clone at its end.
func New(t testing.TB) *DB {
	t.Helper()
	once.Do(start)
	if onceErr != nil {
		t.Fatalf("starting PostgreSQL for tests: %v", onceErr)
	}
	db := clone(t, cluster, fmt.Sprintf("test_%d", counter.Add(1)))
	t.Cleanup(func() {
		admin(context.Background(), cluster, "DROP DATABASE IF EXISTS "+db.Name+" WITH (FORCE)")
	})
	return db
}

// NewCluster starts a migrated cluster for one test alone, which may kill and
// restart it. With durable, fsync is on.
func NewCluster(t testing.TB, durable bool) (*postgres.Cluster, *DB) {
	t.Helper()
	c, err := prepare(postgres.Config{Durable: durable})
	if err != nil {
		t.Fatalf("starting PostgreSQL: %v", err)
	}
	t.Cleanup(c.Stop)
	return c, clone(t, c, "test_0")
}

// Main runs a test binary's tests and stops the shared cluster after them. Call
// it from TestMain: os.Exit(pgtest.Main(m)).
func Main(m *testing.M) int {
	defer func() {
		if cluster != nil {
			cluster.Stop()
		}
	}()
	return m.Run()
}

func start() { cluster, onceErr = prepare(postgres.Config{}) }

func prepare(cfg postgres.Config) (*postgres.Cluster, error) {
	ctx := context.Background()
	c, err := postgres.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := admin(ctx, c, "CREATE DATABASE "+template); err != nil {
		c.Stop()
		return nil, err
	}
	if err := migrations.Up(ctx, c.URL(template, postgres.Superuser), nil); err != nil {
		c.Stop()
		return nil, err
	}
	if err := admin(ctx, c, "CREATE ROLE "+AppUser+" LOGIN IN ROLE sallyport_app"); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

func clone(t testing.TB, c *postgres.Cluster, name string) *DB {
	t.Helper()
	ctx := context.Background()
	if err := admin(ctx, c, "CREATE DATABASE "+name+" TEMPLATE "+template+" STRATEGY file_copy"); err != nil {
		t.Fatalf("cloning the test database: %v", err)
	}
	db := &DB{Name: name, URL: c.URL(name, AppUser), AdminURL: c.URL(name, postgres.Superuser)}
	pool, err := pgxpool.New(ctx, db.URL)
	if err != nil {
		t.Fatalf("connecting to the test database: %v", err)
	}
	db.Pool = pool
	t.Cleanup(pool.Close)
	return db
}

func admin(ctx context.Context, c *postgres.Cluster, sql string) error {
	conn, err := pgx.Connect(ctx, c.URL("postgres", postgres.Superuser))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}
