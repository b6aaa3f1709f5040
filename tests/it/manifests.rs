//! What `deploy/` has for Kubernetes and etcd: checked by programs that know them.
