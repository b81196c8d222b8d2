//! The compute service (Nova v2.1)
// NOTE FROM THE LEAD: src/nodes/ and src/proxies/ are being written by other helpers right now; see AAA_TAKEN.md in each. Wire them here.
