//! The HTTP edge: one pipeline, dialects, errors, discovery
