BEGIN TRANSACTION;
CREATE TABLE backups (
        id TEXT PRIMARY KEY,
        repository TEXT NOT NULL,
        instance TEXT NOT NULL,         -- id
        name TEXT NOT NULL,
        time REAL NOT NULL,             -- of the files
        size INTEGER NOT NULL,
        snapshot TEXT NOT NULL,         -- restic's id
        complete INTEGER NOT NULL,
        staged INTEGER NOT NULL,        -- the copy that it is made of is on this host
        missing TEXT NOT NULL,
        reason TEXT NOT NULL,
        manifest TEXT NOT NULL          -- its SHA-256
    );
INSERT INTO "backups" VALUES('0011aabbccdd','/srv/backups','0123456789ab','db',5.0,4096,'e9dfe139',1,0,'','','');
CREATE TABLE budget_levels (
        subject TEXT PRIMARY KEY,
        amount REAL NOT NULL,
        renews REAL NOT NULL,
        level INTEGER NOT NULL
    );
CREATE TABLE budgets (
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        amount REAL NOT NULL,         -- dollars
        period TEXT NOT NULL,
        PRIMARY KEY (key, value)
    );
CREATE TABLE charges (
        id INTEGER PRIMARY KEY,
        run INTEGER NOT NULL,         -- the id of its start's first segment
        instance TEXT NOT NULL,       -- id; name, image and labels are as they were
        name TEXT NOT NULL,
        image TEXT NOT NULL,
        market TEXT NOT NULL,
        cpus REAL NOT NULL,
        memory INTEGER NOT NULL,
        price REAL NOT NULL,          -- dollars per hour
        on_demand REAL NOT NULL,
        wall REAL NOT NULL,           -- what the clocks showed when it began
        monotonic REAL NOT NULL,
        boot TEXT NOT NULL,
        seconds REAL,                 -- NULL while it goes on
        reclaimed INTEGER NOT NULL,
        labels TEXT NOT NULL          -- JSON
    , priced REAL NOT NULL DEFAULT 0, spent REAL NOT NULL DEFAULT 0);
INSERT INTO "charges" VALUES(1,1,'0123456789ab','db','postgres:15','on-demand',1.0,536870912,0.0329,0.0329,1700000000.0,5000.0,'old',60.5,0,'{}',0.0,0.0);
CREATE TABLE connections (
        network TEXT NOT NULL REFERENCES networks(id),
        instance TEXT NOT NULL REFERENCES instances(id) ON DELETE CASCADE,
        interface INTEGER NOT NULL,
        offset INTEGER NOT NULL,        -- of the address in the network's subnet
        aliases TEXT NOT NULL,          -- JSON
        PRIMARY KEY (instance, network),
        UNIQUE (instance, interface),
        UNIQUE (network, offset)
    );
INSERT INTO "connections" VALUES('00112233aabb','0123456789ab',1,2,'["store"]');
CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        time REAL NOT NULL,
        type TEXT NOT NULL,
        instance TEXT NOT NULL,
        detail TEXT NOT NULL          -- JSON
    );
CREATE TABLE hashes (
        device INTEGER, inode INTEGER, size INTEGER, mtime_ns INTEGER, digest TEXT NOT NULL,
        PRIMARY KEY (device, inode)
    );
CREATE TABLE images (
        digest TEXT PRIMARY KEY,      -- sha256 of the whole file
        size INTEGER NOT NULL,
        created REAL NOT NULL,
        offset INTEGER NOT NULL,      -- of the squashfs in the file
        length INTEGER NOT NULL,
        config BLOB NOT NULL          -- OCI image config, JSON
    );
CREATE TABLE instances (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        image TEXT NOT NULL,
        digest TEXT NOT NULL,
        spec BLOB NOT NULL,           -- JSON
        slot INTEGER NOT NULL UNIQUE,
        state TEXT NOT NULL,
        created REAL NOT NULL,
        started REAL NOT NULL,
        finished REAL NOT NULL,
        exit_code INTEGER,
        pid INTEGER NOT NULL,
        pid_start INTEGER NOT NULL,
        supervisor INTEGER NOT NULL,
        supervisor_start INTEGER NOT NULL,
        reason TEXT NOT NULL
    , kept INTEGER NOT NULL DEFAULT 1, restarts INTEGER NOT NULL DEFAULT 0, wanted INTEGER NOT NULL DEFAULT 0, health TEXT NOT NULL DEFAULT 'none', next_cpus REAL NOT NULL DEFAULT 0, next_memory INTEGER NOT NULL DEFAULT 0, next_disk INTEGER NOT NULL DEFAULT 0);
INSERT INTO "instances" VALUES('0123456789ab','db','postgres:15','sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',X'7B22696D616765223A22706F7374677265733A3135222C22636F6D6D616E64223A5B22706F737467726573225D2C226E616D65223A226462222C22656E747279706F696E74223A6E756C6C2C22656E76223A5B22413D31225D2C2275736572223A22222C22776F726B696E675F646972223A22222C22686F73746E616D65223A22222C22706F727473223A5B7B22636F6E7461696E65725F706F7274223A353433322C22686F73745F706F7274223A31353433322C22686F73745F6970223A22302E302E302E30222C2270726F746F636F6C223A22746370227D5D2C226D6F756E7473223A5B7B22736F75726365223A222F737276222C2264657374696E6174696F6E223A222F64617461222C22726561645F6F6E6C79223A747275657D5D2C2263707573223A312E302C226D656D6F7279223A3533363837303931322C226469736B223A302C22706964735F6C696D6974223A323034382C2273746F705F74696D656F7574223A6E756C6C2C2273746F705F7369676E616C223A22222C22747479223A66616C73652C22737464696E223A66616C73652C2272656D6F7665223A66616C73652C2269736F6C6174696F6E223A22636F6E7461696E6572222C226D61726B6574223A226F6E2D64656D616E64227D',7,'stopped',1700000000.0,1700000001.0,1700000002.0,3,0,0,0,0,'',1,0,0,'none',0.0,0,0);
CREATE TABLE keepalives (
        instance TEXT PRIMARY KEY REFERENCES instances(id) ON DELETE CASCADE,
        until REAL NOT NULL             -- seconds since the epoch
    );
INSERT INTO "keepalives" VALUES('0123456789ab',1700000000.0);
CREATE TABLE names (
        name TEXT PRIMARY KEY,
        digest TEXT NOT NULL REFERENCES images(digest) ON DELETE CASCADE
    );
CREATE TABLE networks (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        number INTEGER NOT NULL UNIQUE, -- names its bridge, and its subnet unless one was asked for
        subnet TEXT NOT NULL,
        gateway TEXT NOT NULL,
        internal INTEGER NOT NULL,
        labels TEXT NOT NULL,           -- JSON
        created REAL NOT NULL
    );
INSERT INTO "networks" VALUES('000000000000','default',0,'','',0,'{}',0.0);
INSERT INTO "networks" VALUES('00112233aabb','back',16,'','',1,'{"team": "x"}',1700000000.0);
CREATE TABLE notices (
        instance TEXT PRIMARY KEY,
        action TEXT NOT NULL,
        reason TEXT NOT NULL,
        given REAL NOT NULL,
        deadline REAL NOT NULL,
        begun INTEGER NOT NULL        -- the action is being taken
    );
CREATE TABLE packed (digest TEXT PRIMARY KEY);
CREATE TABLE quotes (
        time REAL NOT NULL,
        factor REAL NOT NULL,         -- on the on-demand price
        used REAL NOT NULL            -- the share of the capacity that on-demand used
    );
CREATE TABLE schedule_runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        schedule TEXT NOT NULL REFERENCES schedules(id) ON DELETE CASCADE,
        due REAL NOT NULL,
        outcome TEXT NOT NULL,
        began REAL NOT NULL,
        ended REAL NOT NULL,
        instance TEXT NOT NULL,
        name TEXT NOT NULL,
        exit_code INTEGER,
        cost REAL NOT NULL,
        reason TEXT NOT NULL
    );
INSERT INTO "schedule_runs" VALUES(1,'aabbccddeeff',1700000000.0,'exited',1700000000.0,1700000060.0,'0123456789ab','db',0,0.01,'');
CREATE TABLE schedules (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        "when" TEXT NOT NULL,
        timezone TEXT NOT NULL,
        spec BLOB NOT NULL,           -- JSON of what is run, or null
        start TEXT NOT NULL,          -- the id of the instance that is started
        "limit" REAL NOT NULL,
        missed TEXT NOT NULL,
        overlap TEXT NOT NULL,
        jitter REAL NOT NULL,
        keep INTEGER NOT NULL,
        enabled INTEGER NOT NULL,
        created REAL NOT NULL,
        handled REAL NOT NULL
    );
INSERT INTO "schedules" VALUES('aabbccddeeff','nightly','0 2 * * *','Europe/Berlin','null','0123456789ab',7200.0,'run','skip',0.0,3,1,1700000000.0,1700000000.0);
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO "settings" VALUES('subnet','10.208.0.0/16');
CREATE TABLE snapshots (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        instance TEXT NOT NULL,       -- id; snapshots go with their instance
        created REAL NOT NULL,
        complete INTEGER NOT NULL,    -- 0 while it is being made
        volumes TEXT NOT NULL         -- JSON: the names of those that it holds copies of
    , memory INTEGER NOT NULL DEFAULT 0);
CREATE TABLE sources (source TEXT PRIMARY KEY, digest TEXT NOT NULL);
CREATE TABLE spot_requests (
        id TEXT PRIMARY KEY,
        instance TEXT NOT NULL,       -- id; a request outlives its instance
        name TEXT NOT NULL,
        type TEXT NOT NULL,
        status TEXT NOT NULL,
        max_price REAL NOT NULL,      -- dollars per hour
        created REAL NOT NULL,
        updated REAL NOT NULL,
        wanted INTEGER NOT NULL       -- the market fills it when it can
    );
CREATE TABLE volumes (
        name TEXT PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,      -- names its directory
        created REAL NOT NULL,
        size INTEGER NOT NULL,        -- the most bytes, 0: no limit
        labels TEXT NOT NULL          -- JSON
    , raw INTEGER NOT NULL DEFAULT 0);
CREATE INDEX charges_instance ON charges(instance);
CREATE INDEX charges_open ON charges(instance) WHERE seconds IS NULL;
CREATE INDEX quotes_time ON quotes (time);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('schedule_runs',1);
COMMIT;
PRAGMA user_version=13;
