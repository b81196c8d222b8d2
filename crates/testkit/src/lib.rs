//! TestCloud and waits for tests
