# SPDX-License-Identifier: Apache-2.0
"""The tables of `state.db`: each entry of `STEPS` takes the layout one step up.

The number of a layout is how many steps it is made of. A step is never changed once a
release has it; readers of older and newer layouts are kept apart by `READABLE_FROM`.
"""

STEPS = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

    -- feed: the subscription
    CREATE TABLE cursor (
        feed TEXT PRIMARY KEY,
        last_event_id TEXT NOT NULL,
        updated_at REAL NOT NULL
    ) STRICT;
    CREATE TABLE inbox (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        feed TEXT NOT NULL,
        event_id TEXT,               -- NULL: the feed gave none, so no deduplication
        event TEXT NOT NULL,
        product TEXT,                -- NULL: every configured product
        channel TEXT,
        urgency TEXT NOT NULL DEFAULT 'normal',
        version TEXT,                -- the event's own word: for people, never believed
        spread_s INTEGER NOT NULL DEFAULT 0, -- over how long the fleet should come
        data TEXT NOT NULL,          -- its beginning, for people
        received_at REAL NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('pending', 'done', 'quarantined')),
        reason TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE UNIQUE INDEX inbox_once ON inbox (feed, event_id)
        WHERE event_id IS NOT NULL;
    CREATE INDEX inbox_state ON inbox (state, row);
    CREATE TABLE inbox_mark (                -- up to where each product is done
        product TEXT PRIMARY KEY,
        row INTEGER NOT NULL
    ) STRICT;

    -- journal: deployments and their ends
    CREATE TABLE deployment (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        product TEXT NOT NULL,
        channel TEXT NOT NULL,
        version TEXT NOT NULL,
        seq INTEGER NOT NULL,
        from_version TEXT,           -- NULL: first install
        from_seq INTEGER,
        trigger TEXT NOT NULL,       -- event, poll, boot, manual, rollback
        state TEXT NOT NULL,
        code TEXT NOT NULL DEFAULT '',
        reason TEXT NOT NULL DEFAULT '',
        path TEXT NOT NULL DEFAULT '',       -- JSON: which bundles, for people
        bytes_planned INTEGER NOT NULL DEFAULT 0,
        bytes_fetched INTEGER NOT NULL DEFAULT 0,
        bytes_full INTEGER NOT NULL DEFAULT 0,
        boot TEXT NOT NULL DEFAULT '',       -- boot id of the last transition
        started_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        ended_at REAL
    ) STRICT;
    CREATE INDEX deployment_product ON deployment (product, id);
    CREATE UNIQUE INDEX deployment_one_open ON deployment (product)
        WHERE ended_at IS NULL;
    CREATE TABLE transition (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        deployment INTEGER NOT NULL REFERENCES deployment (id),
        state TEXT NOT NULL,
        at REAL NOT NULL,
        code TEXT NOT NULL DEFAULT '',
        reason TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE TABLE installed (
        product TEXT PRIMARY KEY,
        version TEXT NOT NULL,
        seq INTEGER NOT NULL,
        tree TEXT NOT NULL,
        installed_at REAL NOT NULL
    ) STRICT;
    CREATE TABLE release (                   -- releases on this machine's disk
        product TEXT NOT NULL,
        version TEXT NOT NULL,
        seq INTEGER NOT NULL,
        tree TEXT NOT NULL,
        manifest BLOB NOT NULL,
        PRIMARY KEY (product, version)
    ) STRICT;
    CREATE TABLE blocked (
        product TEXT NOT NULL,
        version TEXT NOT NULL,
        seq INTEGER NOT NULL,
        code TEXT NOT NULL,
        reason TEXT NOT NULL,
        failures INTEGER NOT NULL,
        blocked_at REAL NOT NULL,
        PRIMARY KEY (product, version)
    ) STRICT;
    CREATE TABLE product (                   -- what is remembered about each product
        name TEXT PRIMARY KEY,
        seq_floor INTEGER NOT NULL DEFAULT 0,
        root_version INTEGER NOT NULL DEFAULT 0,     -- with pointer_version: the newest
        pointer_version INTEGER NOT NULL DEFAULT 0,  -- signed word seen, ever
        hold_until REAL,                     -- NULL: no hold, 9e999: no end date
        hold_reason TEXT NOT NULL DEFAULT '',
        target_version TEXT,                 -- last known, for `status`
        target_seq INTEGER,
        decision TEXT NOT NULL DEFAULT '',   -- code of the planner's last decision
        decision_reason TEXT NOT NULL DEFAULT '',
        checked_at REAL,
        first_seen_at REAL,                  -- of the current target: max_deferral
        failures INTEGER NOT NULL DEFAULT 0,
        next_attempt_at REAL,
        last_error_code TEXT NOT NULL DEFAULT '',
        last_error TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE TABLE role (                      -- trust, as last seen, for `status`
        name TEXT PRIMARY KEY,
        version INTEGER NOT NULL,
        expires_at REAL NOT NULL
    ) STRICT;
    """,
    # Each channel is signed by a role of its own, whose versions count on their own:
    # an owner who changes channels must not look like the victim of a replay.
    """
    CREATE TABLE authority (                 -- the newest signed word seen, ever
        product TEXT NOT NULL,
        channel TEXT NOT NULL,
        root_version INTEGER NOT NULL,
        pointer_version INTEGER NOT NULL,
        PRIMARY KEY (product, channel)
    ) STRICT;
    INSERT INTO authority
        SELECT name, channel, root_version, pointer_version
        FROM product JOIN deployment ON deployment.id = (
            SELECT max(id) FROM deployment WHERE product = name
        );
    ALTER TABLE product DROP COLUMN root_version;
    ALTER TABLE product DROP COLUMN pointer_version;
    """,
    # Versions and seq count in one repository: a machine that is given another one's
    # root must not look like the victim of a replay (docs/decisions/0011). The table
    # `authority` and `product.seq_floor` stay what older updaterd read.
    """
    CREATE TABLE lineage (                   -- roots that lead to each other
        root TEXT PRIMARY KEY,               -- sha256 of what is signed of it
        repository TEXT NOT NULL             -- the first of them that was seen
    ) STRICT;
    CREATE TABLE mark (                      -- the newest signed word seen, ever
        repository TEXT NOT NULL,
        product TEXT NOT NULL,
        channel TEXT NOT NULL,
        root_version INTEGER NOT NULL,
        pointer_version INTEGER NOT NULL,
        PRIMARY KEY (repository, product, channel)
    ) STRICT;
    CREATE TABLE floor (                     -- of repositories left for another one
        repository TEXT NOT NULL,
        product TEXT NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (repository, product)
    ) STRICT;
    ALTER TABLE product ADD COLUMN repository TEXT NOT NULL DEFAULT '';
    """,
    # A feed may use an id again for another event: what it said tells them apart.
    """
    ALTER TABLE inbox ADD COLUMN digest TEXT NOT NULL DEFAULT '';
    """,
    # Numbers that only grow, each with who said it: what a stolen key said goes with
    # the key (docs/decisions/0019). `mark`, `floor`, `product.seq_floor` and
    # `last_good_time` stay what older updaterd read. Of those it is not known who said
    # them: versions and floors end with the root they were heard under, the floor is
    # at most what is installed, the time was the machine's own and is dropped.
    """
    CREATE TABLE word (
        repository TEXT NOT NULL,
        product TEXT NOT NULL,               -- '': said of the whole repository
        role TEXT NOT NULL,
        keys TEXT NOT NULL,                  -- ids of those who signed, '': not known
        root_version INTEGER NOT NULL,
        version INTEGER NOT NULL,
        floor INTEGER NOT NULL,
        time REAL NOT NULL,
        PRIMARY KEY (repository, product, role, keys)
    ) STRICT;
    CREATE TABLE claim (                     -- what a release says once installed
        deployment INTEGER PRIMARY KEY REFERENCES deployment (id),
        repository TEXT NOT NULL,
        role TEXT NOT NULL,
        keys TEXT NOT NULL,
        root_version INTEGER NOT NULL,
        version INTEGER NOT NULL,
        floor INTEGER NOT NULL
    ) STRICT;
    INSERT INTO word
        SELECT repository, product, product || '.' || channel, '',
               root_version, pointer_version, 0, 0.0 FROM mark;
    INSERT OR IGNORE INTO word
        SELECT '', product, product || '.' || channel, '',
               root_version, pointer_version, 0, 0.0
        FROM authority JOIN product ON name = product WHERE repository = '';
    INSERT INTO word
        SELECT repository, '', 'root', '', max(root_version), max(root_version), 0, 0.0
        FROM mark GROUP BY repository;
    INSERT INTO word
        SELECT repository, name, name || '.releases', '',
               coalesce((SELECT max(root_version) FROM mark
                         WHERE mark.repository = product.repository), 0),
               0, min(seq_floor, seq), 0.0
        FROM product JOIN installed ON installed.product = name WHERE seq_floor > 0;
    INSERT OR IGNORE INTO word
        SELECT repository, product, product || '.releases', '',
               coalesce((SELECT max(root_version) FROM mark
                         WHERE mark.repository = floor.repository), 0),
               0, seq, 0.0
        FROM floor;
    """,
    # Waits are counted from the first pending update, and an announcement is one of a
    # release that failed only if it came later (docs/decisions/0023).
    """
    ALTER TABLE product ADD COLUMN pending_since REAL;
    ALTER TABLE product ADD COLUMN looked_up_to INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE blocked ADD COLUMN announced_at REAL;
    ALTER TABLE deployment ADD COLUMN bytes_cached INTEGER NOT NULL DEFAULT 0;
    UPDATE product SET pending_since = first_seen_at
        WHERE decision IN ('outside_window', 'splay', 'held');
    """,
    # What this machine reports of itself, where its owner wants that (docs/privacy.md),
    # and moments by a clock that nobody sets: how long a part of an update took.
    """
    CREATE TABLE outbox (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        product TEXT NOT NULL,
        body BLOB NOT NULL,                  -- what is sent, byte for byte
        at REAL NOT NULL,
        steady REAL,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'dropped')),
        reason TEXT NOT NULL DEFAULT '',
        sent_at REAL
    ) STRICT;
    CREATE INDEX outbox_state ON outbox (state, row);
    ALTER TABLE transition ADD COLUMN steady REAL;
    ALTER TABLE inbox ADD COLUMN steady REAL;
    """,
    # What a person or the application said about a release that is ready.
    """
    ALTER TABLE product ADD COLUMN postponed_until REAL;
    ALTER TABLE product ADD COLUMN apply_seq INTEGER;
    """,
    # A manifest is kept once, beside its release (docs/decisions/0042): of one that is,
    # here is the hash, and `manifest` is empty.
    """
    ALTER TABLE release ADD COLUMN sha256 TEXT NOT NULL DEFAULT '';
    """,
    # The release that a hold keeps a product at; '': the one that is installed.
    """
    ALTER TABLE product ADD COLUMN hold_at TEXT NOT NULL DEFAULT '';
    """,
)

READABLE_FROM = 2
"""Oldest layout whose updaterd can work with the newest: to be raised only with a
step that changes or drops what older ones use. Adding tables or columns does not."""
