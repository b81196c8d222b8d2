//! Reconcilers, queues, shard leases and the task list
