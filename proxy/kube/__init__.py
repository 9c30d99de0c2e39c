"""What the proxy needs of the cluster that it runs in; the only part of it that knows Kubernetes."""
