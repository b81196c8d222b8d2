//! A small OVSDB client (RFC 7047): transact, monitor, reconnect
