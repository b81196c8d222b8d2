//! Nothing: this package exists so that cargo fetches the documents that `openstack_types` carries.
