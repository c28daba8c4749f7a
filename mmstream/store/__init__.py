"""The event log on disk: what must arrive is in it before it is published, and stays for a while.

`store` is the writer (one per file): the spool and the journal of open events. `event_log` reads
beside it: list, show, search, export. `database` opens the SQLite file, `schema` is what is in it,
`records` are its rows, `eviction` keeps it bounded.

Synchronous, and used on one thread: whoever needs it gives it a thread of its own.
"""
