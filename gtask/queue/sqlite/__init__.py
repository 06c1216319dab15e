"""The store that is one SQLite file, used by whoever holds its lock.

`files` has the lock and what the file system must be, `schema` the tables, `ledger` the counts and numbers
that are kept in memory, `session` one transaction; `puts`, `claims`, `ends`, `upkeep` and `reading` are what is
done in it; `store` puts all of that behind the interface.
"""
