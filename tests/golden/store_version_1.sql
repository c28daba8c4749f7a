-- A file of version 1, as it was first released. Never changed: every later version must open it.
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA application_id = 1835889524;
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE entries (
    entry INTEGER PRIMARY KEY,
    content TEXT NOT NULL,        -- event, alert, caption
    id TEXT NOT NULL,
    node TEXT NOT NULL,
    source TEXT NOT NULL,
    kind TEXT,                    -- of an event or caption
    label TEXT,                   -- of an event; the rule of an alert
    text TEXT NOT NULL,           -- of a caption
    notes TEXT NOT NULL,          -- labels and notes of all evidence, a line each
    t_start REAL NOT NULL,        -- seconds since 1970
    t_end REAL,
    top_score REAL,
    end_reason TEXT,
    is_open INTEGER NOT NULL,     -- an event without its end
    n_waiting INTEGER NOT NULL,   -- messages not delivered yet
    touched_ns INTEGER NOT NULL,  -- when its last message was stored, since 1970
    UNIQUE (content, id)
);
CREATE TABLE messages (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    entry INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    type TEXT,                    -- of an event: start, update, end
    is_waiting INTEGER NOT NULL,
    added_ns INTEGER NOT NULL,
    payload TEXT NOT NULL,
    UNIQUE (boot_id, seq)
);
CREATE INDEX messages_of_entry ON messages (entry);
CREATE INDEX messages_waiting ON messages (key) WHERE is_waiting = 1;
CREATE INDEX entries_by_time ON entries (t_start);
CREATE INDEX entries_by_source ON entries (source, t_start);
CREATE INDEX entries_by_label ON entries (label, t_start);
CREATE INDEX entries_open ON entries (touched_ns) WHERE is_open = 1;
CREATE INDEX entries_spooled ON entries (touched_ns) WHERE is_open = 0 AND n_waiting > 0;
CREATE INDEX entries_logged ON entries (touched_ns) WHERE is_open = 0 AND n_waiting = 0;
CREATE VIRTUAL TABLE texts USING fts5 (
    source, label, text, notes, end_reason,
    content = 'entries', content_rowid = 'entry', tokenize = 'unicode61 remove_diacritics 2'
);
CREATE TRIGGER entry_added AFTER INSERT ON entries BEGIN
    INSERT INTO texts (rowid, source, label, text, notes, end_reason)
    VALUES (NEW.entry, NEW.source, NEW.label, NEW.text, NEW.notes, NEW.end_reason);
END;
CREATE TRIGGER entry_removed AFTER DELETE ON entries BEGIN
    INSERT INTO texts (texts, rowid, source, label, text, notes, end_reason)
    VALUES ('delete', OLD.entry, OLD.source, OLD.label, OLD.text, OLD.notes, OLD.end_reason);
END;
CREATE TRIGGER entry_changed AFTER UPDATE ON entries
WHEN OLD.source IS NOT NEW.source OR OLD.label IS NOT NEW.label OR OLD.text IS NOT NEW.text
    OR OLD.notes IS NOT NEW.notes OR OLD.end_reason IS NOT NEW.end_reason
BEGIN
    INSERT INTO texts (texts, rowid, source, label, text, notes, end_reason)
    VALUES ('delete', OLD.entry, OLD.source, OLD.label, OLD.text, OLD.notes, OLD.end_reason);
    INSERT INTO texts (rowid, source, label, text, notes, end_reason)
    VALUES (NEW.entry, NEW.source, NEW.label, NEW.text, NEW.notes, NEW.end_reason);
END;
INSERT INTO entries VALUES (1, 'event', 'e1', 'pi', 'door', 'video', 'motion', '', '', 1795428000.0, 1795428001.0, 0.75, 'quiet', 0, 0, 1795428000000000000);
INSERT INTO entries VALUES (2, 'event', 'e2', 'pi', 'door', 'video', 'motion', '', '', 1795428000.0, NULL, 0.75, NULL, 1, 1, 1795428000000000000);
INSERT INTO entries VALUES (3, 'caption', 'c1', 'pi', 'door', 'speech', NULL, 'ein Glass fällt', '', 1795428000.0, 1795428000.0, NULL, NULL, 0, 1, 1795428000000000000);
INSERT INTO messages VALUES (1, 1, '3c0e5a81', 0, 'start', 0, 1795428000000000000,
'{"v":1,"node":"pi","boot_id":"3c0e5a81","ts_emit":"2026-11-23T10:00:00.000Z","seq":0,"latency_ms":null,"late":false,"id":"e1","type":"start","source":"door","label":"motion","kind":"video","score":0.5,"top_score":0.75,"ts_start":"2026-11-23T10:00:00.000Z","t_start":1795428000.0,"ts_end":null,"t_end":null,"evidence":[],"contribution":{"audio":0.0,"video":1.0,"text":0.0},"offset_ms":null,"end_reason":null}');
INSERT INTO messages VALUES (2, 1, '3c0e5a81', 1, 'end', 0, 1795428000000000000,
'{"v":1,"node":"pi","boot_id":"3c0e5a81","ts_emit":"2026-11-23T10:00:00.000Z","seq":1,"latency_ms":null,"late":false,"id":"e1","type":"end","source":"door","label":"motion","kind":"video","score":0.5,"top_score":0.75,"ts_start":"2026-11-23T10:00:00.000Z","t_start":1795428000.0,"ts_end":"2026-11-23T10:00:01.000Z","t_end":1795428001.0,"evidence":[],"contribution":{"audio":0.0,"video":1.0,"text":0.0},"offset_ms":null,"end_reason":"quiet"}');
INSERT INTO messages VALUES (3, 2, '3c0e5a81', 2, 'start', 1, 1795428000000000000,
'{"v":1,"node":"pi","boot_id":"3c0e5a81","ts_emit":"2026-11-23T10:00:00.000Z","seq":2,"latency_ms":null,"late":false,"id":"e2","type":"start","source":"door","label":"motion","kind":"video","score":0.5,"top_score":0.75,"ts_start":"2026-11-23T10:00:00.000Z","t_start":1795428000.0,"ts_end":null,"t_end":null,"evidence":[],"contribution":{"audio":0.0,"video":1.0,"text":0.0},"offset_ms":null,"end_reason":null}');
INSERT INTO messages VALUES (4, 3, '3c0e5a81', 3, NULL, 1, 1795428000000000000,
'{"v":1,"node":"pi","boot_id":"3c0e5a81","ts_emit":"2026-11-23T10:00:00.000Z","seq":3,"latency_ms":null,"late":false,"id":"c1","state":"final","revision":0,"source":"door","text":"ein Glass fällt","kind":"speech","ts_start":"2026-11-23T10:00:00.000Z","t_start":1795428000.0,"ts_end":"2026-11-23T10:00:00.000Z","t_end":1795428000.0,"words":[],"confidence":0.5,"language":"de"}');
PRAGMA user_version = 1;
COMMIT;
