"""Linux mechanisms: cgroups, mounts, namespaces, processes."""
