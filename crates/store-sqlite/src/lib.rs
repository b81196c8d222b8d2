//! The embedded store engine: SQLite with group commit
